"""Does an edit harm the model on text that has nothing to do with emotion? Tested by equivalence.

A difference that is not significant shows nothing, so "no damage" has to be shown itself: on
neutral documents the KL divergence to the unedited model must lie below a margin stated beforehand,
and the change of the cross entropy within one on both sides (two one-sided t tests; Schuirmann
1987, J. Pharmacokin. Biopharm. 15:657). The document is the unit, since its tokens depend on each
other. Margins are settings, in nats a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from affectlens.data.corpus import Corpus, held_out
from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.features.effect_columns import DAMAGE_COLUMNS
from affectlens.features.jobs import Job
from affectlens.features.side_effects import side_effects
from affectlens.sae.model import SparseAutoencoder

Array = npt.NDArray[np.float64]

_ALPHA = 0.05
_SHORTEST = 16
"""Documents of fewer tokens are left out."""


@dataclass(frozen=True, eq=False)
class DamageArm:
    """An edit to try on documents, and how its row is named.

    Attributes:
        labels: `emotion`, `intervention`, `arm` and `strength` of the row.
        job: what is done.
    """

    labels: Mapping[str, Any]
    job: Job


def neutral_texts(
    lm: LanguageModel, corpus: Corpus, n_documents: int, n_tokens: int, seed: int
) -> list[str]:
    """Beginnings of held-out documents drawn at random, about `n_tokens` tokens each.

    Raises:
        ConfigError: the corpus has too few held-out documents that are long enough.
    """
    held = held_out([d.id for d in corpus.documents])
    texts = [d.text for d, out in zip(corpus.documents, held, strict=True) if out]
    found: list[str] = []
    for i in np.random.default_rng([seed, 5]).permutation(len(texts)):
        # Characters are cut first so that no document is longer than the context.
        row = lm.token_ids(texts[i][: 12 * n_tokens])[:n_tokens]
        if len(row) >= min(n_tokens, _SHORTEST):
            found.append(str(lm.tokenizer.decode(row, skip_special_tokens=True)))
        if len(found) == n_documents:
            return found
    raise ConfigError(
        f"the corpus {corpus.name!r} has {len(found)} held-out documents that are long enough, but "
        f"damage_documents is {n_documents}; ask for fewer, or 0 for no test of damage"
    )


def damage_table(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    texts: Sequence[str],
    arms: Sequence[DamageArm],
    margin_kl: float,
    margin_ce: float,
    *,
    done: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """One row for each edit with the columns `DAMAGE_COLUMNS`.

    Args:
        lm: the model.
        sae: its autoencoder.
        texts: neutral documents; with fewer than two nothing can be shown.
        arms: edits.
        margin_kl: KL (nats a token) that counts as damage.
        margin_ce: change of the cross entropy (nats a token) that does.
        done: called with 1 after each edit and batch of documents.
    """
    jobs = {str(i): arm.job for i, arm in enumerate(arms)}
    costs = side_effects(lm, sae, jobs, texts, done=done)
    rows = []
    for i, arm in enumerate(arms):
        own = costs[costs["job"] == str(i)]
        kl, change = (own[name].to_numpy(dtype=float) for name in ("kl", "ce_increase"))
        rows.append(
            {
                **arm.labels,
                "n_documents": len(own),
                "n_tokens": int(own["n_tokens"].sum()),
                "ce_unedited": float(own["ce"].mean()),
                **equivalence(kl, change, margin_kl, margin_ce),
            }
        )
    return pd.DataFrame(rows, columns=list(DAMAGE_COLUMNS))


def equivalence(kl: Array, change: Array, margin_kl: float, margin_ce: float) -> dict[str, Any]:
    """Bounds and tests of one edit from means of documents.

    Args:
        kl: [n_documents] KL (nats a token).
        change: [n_documents] edited minus unedited cross entropy (nats a token).
        margin_kl: see `damage_table`.
        margin_ce: see `damage_table`.

    Returns:
        The statistical columns of `DAMAGE_COLUMNS`; bounds are NaN below two documents.
    """
    high, both = _Mean(kl), _Mean(change)
    p_kl = high.p_below(margin_kl)
    p_ce = max(both.p_below(margin_ce), _Mean(-change).p_below(margin_ce))
    return {
        "kl": high.mean,
        "kl_high": high.bound(1),
        "ce_change": both.mean,
        "ce_low": both.bound(-1),
        "ce_high": both.bound(1),
        "margin_kl": margin_kl,
        "margin_ce": margin_ce,
        "p_kl": p_kl,
        "p_ce": p_ce,
        "no_damage": max(p_kl, p_ce) <= _ALPHA,
    }


class _Mean:
    """Mean of documents with one-sided t bounds and tests."""

    def __init__(self, values: Array) -> None:
        self.n, self.mean = len(values), float(values.mean())
        self.error = float(values.std(ddof=1) / np.sqrt(self.n)) if self.n > 1 else float("nan")

    def bound(self, side: int) -> float:
        """One-sided 95% bound; the mean itself where documents do not differ."""
        return self.mean + side * float(stats.t.ppf(1 - _ALPHA, self.n - 1)) * self.error

    def p_below(self, margin: float) -> float:
        """p of the hypothesis that the mean is at or above the margin; 1 below two documents."""
        if self.n < 2:
            return 1.0
        if self.error == 0:
            return 0.0 if self.mean < margin else 1.0
        return float(stats.t.cdf((self.mean - margin) / self.error, self.n - 1))
