"""What can be said of found latents without a language model that writes names.

Two sides are kept apart. On the input side stand the tokens and contexts in held-out text on which
a latent fires; on the output side the tokens that its decoder row promotes. A latent can fire on
words of an emotion, promote them, both, or neither. From that comes its kind, the first that fits:

- "not seen": it never fires on the held-out text, so nothing is known of its input side;
- "detects words": at least `DETECTS_MASS` of its activation mass lies on emotion words;
- "names": it promotes its emotion's words, AUROC >= `NAMES_AUROC` and p <= `NAMES_P`;
- "evokes": neither, yet the search found it on emotional scenes.

A kind describes; it is no test. "evokes" in particular is what is left over: words outside the
lexicon, or a text's topic, may still explain the latent. The lexical controls test that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from affectlens.data.emotion_lexicon import own_lexicon
from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.progress import track
from affectlens.data.store import ActivationStore
from affectlens.features import logit_lens, token_profile
from affectlens.features.contexts import ContextGroup, HeldoutScan, grouped_contexts, scan_heldout
from affectlens.features.contrasts import ALL
from affectlens.features.fit import stored_hook
from affectlens.features.naming_columns import NAMING_COLUMNS
from affectlens.features.neighbours import Neighbour, nearest_by_cofiring, nearest_by_cosine
from affectlens.features.results import write_table
from affectlens.features.validation_config import NamingConfig
from affectlens.features.validation_views import NamesViews
from affectlens.features.word_mass import piece_of
from affectlens.sae.model import SparseAutoencoder

Kind = Literal["not seen", "detects words", "names", "evokes"]

DETECTS_MASS = 0.5
"""Above half its mass, what a latent does is mostly told by a list of words."""

NAMES_AUROC = 0.714
"""A large effect: the AUROC of two normal distributions 0.8 standard deviations apart (Ruscio
2008), 0.8 being large after Cohen (1988)."""

NAMES_P = 0.01
"""At most one latent in a hundred of the same SAE promotes these words as much. Not corrected for
the number of latents: it is a description, and about that share of any list passes by chance."""


@dataclass(frozen=True)
class EmotionWords:
    """A latent and the words of one contrast's emotion.

    Attributes:
        contrast: 'all' (words of every emotion) or an emotion.
        kind: see the module.
        own_mass: share of its mass on the words; None if it never fires, or there are no words.
        auroc: of the promotion of the words; None below `readouts.MIN_WORDS` single tokens.
        z: Mann-Whitney z; None likewise.
        p_reference: share of reference latents with at least that AUROC; None likewise.
        n_words: words that are single tokens.
    """

    contrast: str
    kind: Kind
    own_mass: float | None
    auroc: float | None
    z: float | None
    p_reference: float | None
    n_words: int


@dataclass(frozen=True)
class FeatureName:
    """What is known of one latent; numbers of held-out text are over unmasked tokens.

    Attributes:
        feature: latent index.
        firing_rate: share of tokens on which it is active.
        max_active: largest activation.
        density: histogram of log10 activation.
        groups: contexts by range of activation, strongest first; empty if it never fires.
        tokens: token types of its mass.
        emotion_mass: share of its mass on words of any emotion; None if it never fires.
        lens: tokens promoted and suppressed.
        emotions: its place against the words of each contrast that found it.
        nearest_decoder: nearest latents by decoder cosine.
        nearest_cofiring: nearest latents by phi of firing.
    """

    feature: int
    firing_rate: float
    max_active: float
    density: token_profile.Density
    groups: tuple[ContextGroup, ...]
    tokens: token_profile.TokenProfile
    emotion_mass: float | None
    lens: logit_lens.Lens
    emotions: tuple[EmotionWords, ...]
    nearest_decoder: tuple[Neighbour, ...]
    nearest_cofiring: tuple[Neighbour, ...]


@dataclass(frozen=True, repr=False)
class FeatureNames(NamesViews):
    """Names of found latents.

    Attributes:
        names: one a latent, by index.
        model_name: the language model.
        hook_name: where the SAE reads.
        sae_sha256: hash of the SAE's weights.
        n_tokens: unmasked held-out tokens read.
        n_masked: held-out tokens left out.
        emotion_token_rate: share of the unmasked tokens that lie on emotion words.
        lexicon: name of the list of emotion words.
        final_norm: name of the norm folded into the unembedding.
        centred: whether that norm removes the mean.
        n_reference: latents that gave the null distribution of AUROC.
    """

    names: tuple[FeatureName, ...]
    model_name: str
    hook_name: str
    sae_sha256: str
    n_tokens: int
    n_masked: int
    emotion_token_rate: float
    lexicon: str
    final_norm: str
    centred: bool
    n_reference: int

    def table(self) -> pd.DataFrame:
        """One row a contrast and latent (`NAMING_COLUMNS`); NaN where a docstring says None."""
        rows = [
            _row(name, words, self.emotion_token_rate)
            for name in self.names
            for words in name.emotions
        ]
        return pd.DataFrame(rows, columns=list(NAMING_COLUMNS))

    def of(self, contrasts: Sequence[str]) -> FeatureNames:
        """Only the latents that some of these contrasts found, and what concerns these."""
        wanted = set(contrasts)
        kept = (
            replace(name, emotions=tuple(e for e in name.emotions if e.contrast in wanted))
            for name in self.names
        )
        return replace(self, names=tuple(name for name in kept if name.emotions))

    def write(self, run: Path) -> Path:
        """Write `naming/*` of a run folder: the table, then all names; returns their path."""
        from affectlens.features.naming_files import write_names

        write_table(self.table(), run, "naming/names")
        return write_names(Path(run) / "naming/names.jsonl", self)


def kind_of(emotion_mass: float | None, auroc: float | None, p_reference: float | None) -> Kind:
    """The kind of a latent, by the rules of the module; a score of None promotes nothing."""
    if emotion_mass is None:
        return "not seen"
    if emotion_mass >= DETECTS_MASS:
        return "detects words"
    if auroc is None or p_reference is None:
        return "evokes"
    return "names" if auroc >= NAMES_AUROC and p_reference <= NAMES_P else "evokes"


def name_features(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    features: Mapping[str, Sequence[int]],
    store: ActivationStore,
    config: NamingConfig | None = None,
    *,
    hook: str | None = None,
    quiet: bool | None = None,
) -> FeatureNames:
    """Describe the first `config.n_features` latents of each contrast.

    Args:
        lm: the model that the SAE reads; only its unembedding and tokenizer are used.
        sae: the SAE.
        features: latents of each contrast ('all' or an emotion), best first. For an emotion that
            the lexicon has no words of, mass on own words and promotion are None.
        store: activations; their held-out part is read once.
        config: settings.
        hook: hook name in the store; where the SAE belongs by default.
        quiet: see `data.progress.track`.

    Raises:
        ConfigError: no latents, a latent twice or outside the SAE.
        ModelError: the model gives no unembedding, or one of another width.
        SAEError, ArtifactError: the store lacks the place, or holds nothing out.
    """
    config = config or NamingConfig()
    found = _chosen(features, config.n_features)
    latents = sorted({f for listed in found.values() for f in listed})
    place = hook if hook is not None else stored_hook(sae, store)
    with track(1, "passes", "read held-out text", quiet=quiet) as bar:
        scan = scan_heldout(
            sae,
            store,
            place,
            features=latents,
            max_rows=config.n_heldout_tokens,
            cofiring=True,
        )
        bar.update(1)
    out = logit_lens.unembedding(lm)
    piece = piece_of(lm.tokenizer)
    words = token_profile.words_of_rows(scan.rows, piece)
    lexicon = own_lexicon()
    any_emotion = frozenset(lexicon.index)
    sets = {c: any_emotion if c == ALL else lexicon.words.get(c, frozenset()) for c in found}
    on_any = token_profile.on_words(words, any_emotion)
    masses = [token_profile.mass_share(t, on_any) for t in scan.activations.T]
    reference = _reference(scan, latents, config)
    evidence = _evidence(lm, out, sae, scan, found, sets, words, masses, reference)
    directions = sae.W_dec[torch.as_tensor(latents, device=sae.device)]
    lens = logit_lens.lenses(out, directions, config.n_tokens)
    groups = grouped_contexts(
        scan, lm.tokenizer, config.n_groups, config.n_contexts, config.context_width
    )
    by_decoder = nearest_by_cosine(sae.W_dec, latents, config.n_neighbours)
    by_firing = _cofiring(scan, latents, config.n_neighbours)
    rates, tops = scan.stats["firing_rate"], scan.stats["max_active"]
    names = tuple(
        FeatureName(
            feature=latent,
            firing_rate=float(rates[latent]),
            max_active=float(tops[latent]),
            density=token_profile.density(trace),
            groups=groups[i],
            tokens=token_profile.token_profile(trace, scan.rows, piece, config.n_tokens),
            emotion_mass=masses[i],
            lens=lens[i],
            emotions=tuple(evidence[c][latent] for c in found if latent in evidence[c]),
            nearest_decoder=by_decoder[i],
            nearest_cofiring=by_firing[i],
        )
        for i, (latent, trace) in enumerate(zip(latents, scan.activations.T, strict=True))
    )
    keep = np.asarray(scan.rows.keep, dtype=bool)
    return FeatureNames(
        names=names,
        model_name=lm.name,
        hook_name=sae.info.hook_name,
        sae_sha256=sae.fingerprint,
        n_tokens=scan.n_tokens,
        n_masked=int((~keep).sum()),
        emotion_token_rate=float(on_any[keep].mean()),
        lexicon=lexicon.name,
        final_norm=out.norm_name,
        centred=out.centred,
        n_reference=len(reference),
    )


def _chosen(features: Mapping[str, Sequence[int]], n: int) -> dict[str, tuple[int, ...]]:
    """The first n latents of each contrast, checked."""
    found: dict[str, tuple[int, ...]] = {}
    for contrast, listed in features.items():
        found[contrast] = tuple(int(f) for f in listed[:n])
        if len(set(found[contrast])) < len(found[contrast]):
            raise ConfigError(f"contrast {contrast!r} lists a latent twice: {found[contrast]}")
    if not any(found.values()):
        raise ConfigError("no latents to name; give latents of at least one contrast")
    return found


def _reference(
    scan: HeldoutScan, latents: Sequence[int], config: NamingConfig
) -> npt.NDArray[np.int64]:
    """Random other latents that fire on held-out text, without replacement; sorted.

    Latents that never fire often hardly left their random start, so they would be no match.
    """
    alive = np.flatnonzero(scan.stats["firing_rate"].to_numpy() > 0)
    others = np.setdiff1d(alive, latents)
    drawn = np.random.default_rng(config.seed).permutation(others)[: config.n_reference]
    return np.sort(drawn).astype(np.int64)


def _evidence(
    lm: LanguageModel,
    out: logit_lens.Unembedding,
    sae: SparseAutoencoder,
    scan: HeldoutScan,
    found: Mapping[str, Sequence[int]],
    sets: Mapping[str, frozenset[str]],
    words: npt.NDArray[np.object_],
    masses: Sequence[float | None],
    reference: npt.NDArray[np.int64],
) -> dict[str, dict[int, EmotionWords]]:
    """The words of each contrast against its latents."""
    latents = list(scan.features)
    rows = torch.as_tensor([*latents, *reference.tolist()], device=sae.device)
    ids = [logit_lens.word_token_ids(lm, out, sets[c]) for c in found]
    scores = logit_lens.word_scores(out, sae.W_dec[rows], ids)
    evidence: dict[str, dict[int, EmotionWords]] = {}
    for contrast, tokens, score in zip(found, ids, scores, strict=True):
        on_own = token_profile.on_words(words, sets[contrast])
        evidence[contrast] = {}
        for latent in found[contrast]:
            column = latents.index(latent)
            auroc = z = p = None
            if score is not None:
                auroc, z = float(score.auroc[column]), float(score.z[column])
                p = logit_lens.reference_p(auroc, score.auroc[len(latents) :])
            evidence[contrast][latent] = EmotionWords(
                contrast=contrast,
                kind=kind_of(masses[column], auroc, p),
                own_mass=token_profile.mass_share(scan.activations[:, column], on_own)
                if sets[contrast]
                else None,
                auroc=auroc,
                z=z,
                p_reference=p,
                n_words=len(tokens),
            )
    return evidence


def _cofiring(scan: HeldoutScan, latents: Sequence[int], n: int) -> list[tuple[Neighbour, ...]]:
    if scan.cofired is None:
        return [() for _ in latents]
    fired = np.rint(scan.stats["firing_rate"].to_numpy() * scan.n_tokens).astype(np.int64)
    return nearest_by_cofiring(scan.cofired, fired, latents, scan.n_tokens, n)


def _row(name: FeatureName, words: EmotionWords, rate: float) -> dict[str, object]:
    first = name.tokens.top[0] if name.tokens.top else None

    def number(value: float | None) -> float:
        return float("nan") if value is None else value

    return {
        "contrast": words.contrast,
        "feature": name.feature,
        "kind": words.kind,
        "firing_rate": name.firing_rate,
        "max_active": name.max_active,
        "emotion_mass": number(name.emotion_mass),
        "own_mass": number(words.own_mass),
        "emotion_token_rate": rate,
        "auroc": number(words.auroc),
        "z": number(words.z),
        "p_reference": number(words.p_reference),
        "n_words": words.n_words,
        "entropy_bits": number(name.tokens.entropy_bits),
        "effective_types": number(name.tokens.effective_types),
        "top_token": "" if first is None else first.text,
        "top_share": number(None if first is None else first.mass_share),
        "promoted": json.dumps([t.text for t in name.lens.promoted]),
        "suppressed": json.dumps([t.text for t in name.lens.suppressed]),
        "nearest_decoder": ",".join(str(n.feature) for n in name.nearest_decoder),
        "nearest_cofiring": ",".join(str(n.feature) for n in name.nearest_cofiring),
    }
