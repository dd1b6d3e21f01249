"""Screen of all live latents by what they do to the readouts, beside what the search says.

A search finds latents that respond to emotion; whether they move the model's emotional output is
another question, and the answer is often no. The screen estimates the effect of every live latent
on every contrast's readout by gradients (`attribution`), measures it exactly for the largest
estimates and for a random sample, says how far the two agree, and gives the candidates an output
score (`output_score`). `choosing.select` picks latents by either side or by both.

Only discovery pairs are read. No test is made and no p given: a screen ranks, and what it picks is
tested on the confirmation pairs by `effects`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from affectlens.data.errors import ConfigError, ModelError
from affectlens.data.models import LanguageModel
from affectlens.data.progress import track
from affectlens.data.stimuli import Battery
from affectlens.features.fit import require_fit
from affectlens.features.output_score import PREFIXES, OutputScores, input_scores, output_scores
from affectlens.features.readout_words import emotion_words
from affectlens.features.readouts import Readout, build_readout, readout_name_of
from affectlens.features.screen_config import ScreenConfig
from affectlens.features.screen_effects import Screened, ScreenTexts
from affectlens.features.screen_records import ScreenSummary
from affectlens.features.screen_tables import (
    KINDS,
    Picks,
    agreement_table,
    completeness,
    contrast_rows,
    pick,
)
from affectlens.features.screened import Screen
from affectlens.features.search import SearchResult
from affectlens.features.stored import require_searched
from affectlens.sae.model import SparseAutoencoder

Array = npt.NDArray[np.float64]


def screen(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    config: ScreenConfig | None = None,
    *,
    readout: Readout | None = None,
    out: Path | None = None,
    quiet: bool | None = False,
    allow_misfit: Sequence[str] = (),
) -> Screen:
    """Estimate, for some latents measure, what each latent does to each contrast's readout.

    Args:
        lm: the model.
        sae: the SAE that was searched.
        battery: the battery that was searched; only its discovery part is read.
        found: the search, made with a store of activations.
        config: settings.
        readout: what is read; by default made from the settings.
        out: run folder; `search/screen*` are written there if given.
        quiet: no progress.
        allow_misfit: misfits to pass over, see `fit.require_fit`; kept in the summary.

    Raises:
        SAEError: the SAE does not fit the model.
        ArtifactError: another SAE was searched.
        ConfigError: no firing statistics, no contrast that the readout reads, another battery, or
            more openings than there are.
    """
    config = config or ScreenConfig()
    if config.n_prefixes > len(PREFIXES):
        raise ConfigError(f"n_prefixes is {config.n_prefixes}; there are {len(PREFIXES)}")
    allow = [*allow_misfit, *require_searched(found, sae)]
    passed = require_fit(sae, lm, allow=allow)
    maxima = _maxima(found, sae.d_sae)
    if readout is None:
        words = emotion_words(config.words)
        readout = build_readout(lm, words, config.templates, calibrate=config.calibrate)
    columns, unread = _columns(found, readout)
    study = Screened(
        lm,
        sae,
        ScreenTexts.of(battery, found.parts, config.max_pairs),
        readout,
        columns,
        config.clamp_strength * maxima,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
    )
    with track(4 if config.n_steps else 2, "passes", "screen", quiet=quiet) as bar:
        estimates = study.estimates(bar.update)
    lengths = sae.W_dec.norm(dim=-1).double().cpu().numpy()
    norms = config.clamp_strength * study.write_scale * maxima * lengths
    picks = pick(estimates, norms, config)
    n_jobs = sum(len(picks.union(kind)) for kind in KINDS)
    with track(n_jobs, "latents", "screen", quiet=quiet) as bar:
        exact = {
            "ablate": study.ablated(picks.asked("ablate"), bar.update),
            "clamp": study.clamped(picks.union("clamp"), bar.update),
        }
    scores, unscored = _scores(lm, sae, found, picks, maxima, config)
    inputs = input_scores(scores.promoted, found.contexts)
    parts = {
        c: contrast_rows(c, estimates[c], exact, picks, found, scores, inputs, norms, config)
        for c in columns
    }
    table = pd.concat(parts.values(), ignore_index=True)
    joint = study.all_ablated()
    n_live = int((maxima > 0).sum())
    summary = ScreenSummary(
        contrasts=list(columns),
        unread=unread,
        readout=readout.describe(),
        n_pairs=len(study.texts.pairs),
        n_texts={c: len(study.texts.own(c)) for c in columns},
        n_live=n_live,
        n_dead=sae.d_sae - n_live,
        n_kept={c: len(rows) for c, rows in parts.items()},
        n_left_out={c: n_live - int((rows["clamp_norm"] > 0).sum()) for c, rows in parts.items()},
        n_measured={kind: len(picks.union(kind)) for kind in KINDS},
        completeness={c: completeness(estimates[c], joint[c]) for c in columns},
        n_scored=len(scores.table),
        unscored=unscored,
        n_prefixes=scores.n_prefixes,
        n_prefixes_masked=scores.n_masked,
        settings=config.model_dump(mode="json"),
        misfits=passed,
    )
    result = Screen(table, agreement_table(table, config), summary)
    if out is not None:
        result.write(Path(out))
    return result


def _maxima(found: SearchResult, d_sae: int) -> Array:
    """Largest held-out activation of every latent, [d_sae]."""
    if not len(found.stats):
        raise ConfigError(
            "the search holds no firing statistics, which give clamps their unit; search with a "
            "store of activations (`store=`, or --store on the command line)"
        )
    maxima = np.zeros(d_sae)
    maxima[found.stats["feature"].to_numpy(dtype=np.int64)] = found.stats["max_active"]
    return maxima


def _columns(found: SearchResult, readout: Readout) -> tuple[dict[str, int], dict[str, str]]:
    """Contrast -> column of the readout, and contrast -> reason where it has none."""
    columns, unread = {}, {}
    for contrast in found.contrasts:
        try:
            columns[contrast] = readout.names.index(readout_name_of(contrast, readout))
        except ConfigError as error:
            unread[contrast] = str(error)
    if not columns:
        raise ConfigError(
            f"the readout reads {', '.join(readout.names)}, none of the contrasts of the search "
            f"({', '.join(found.contrasts)}); give other words"
        )
    return columns, unread


def _scores(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    found: SearchResult,
    picks: Picks,
    maxima: Array,
    config: ScreenConfig,
) -> tuple[OutputScores, str]:
    """Output scores of the best by input, what the search retained, and the largest estimates.

    And why there are none, for a model whose unembedding the logit lens does not cover.
    """
    wanted = set(found.table.loc[found.table["retained"], "feature"])
    for contrast in picks.top["clamp"]:
        wanted.update(found.top(contrast, config.n_candidates))
        wanted.update(picks.steep[contrast].tolist())
        for kind in KINDS:
            wanted.update(picks.top[kind][contrast].tolist())
    features = sorted(int(f) for f in wanted if maxima[int(f)] > 0)
    try:
        scores = output_scores(
            lm,
            sae,
            features,
            maxima[features].tolist(),
            strength=config.output_strength,
            prefixes=PREFIXES[: config.n_prefixes],
        )
    except ModelError as error:
        return OutputScores.none(), str(error)
    return scores, ""
