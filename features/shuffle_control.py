"""Difference in differences against shuffled texts: what of an effect needs the order of words.

A pair is read as it is and with its words in random order, k times. With D the clinical minus
neutral activation and D_s the same from shuffled texts, averaged over the k orders,

    DiD = D - D_s,   share kept = effect of D_s / effect of D.

A latent that follows words keeps its difference; one that follows what the words say together loses
it. Three grains: all words of a text, the words within each sentence, the order of whole
sentences. A suffix that is read is never shuffled. Each order depends on the seed, the item, the
grain and k alone, never on which member of the pair the text is.

Shuffled text is unlike what the model was trained on. A latent may fall silent on it for want of
fluency, and the difference is lost with it. Firing rates stand beside each other for that reason,
and a class rests on this control alone only where they are alike. The order of sentences is the
fluent one of the grains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectlens.data.scramble import scramble_text, sentences
from affectlens.data.stimuli import Pair
from affectlens.features import stats
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import Retest, retest
from affectlens.features.design import PairDesign
from affectlens.features.effect_share import EffectShare, effect, effect_share, sides
from affectlens.features.pair_data import Members
from affectlens.features.validation_config import Grain

Array = npt.NDArray[np.float64]

RATE_FACTOR = 2.0
"""Firing rates that differ by more than this are pointed out. A latent active on half as many
texts, as strongly as before on each, has half the difference left: as much as separates 'mostly
words' from the rest (`feature_classes.MOSTLY`), without any change of contrast."""

_TRIES = 64


@dataclass(frozen=True, eq=False)
class ShuffleControl:
    """One contrast under one grain; arrays are [n_columns].

    Attributes:
        grain: what was put in another order.
        n_shuffles: random orders averaged over.
        n_pairs: own pairs that entered; for 'all' every pair.
        n_excluded: pairs, others' included, with a member that has nothing to reorder.
        effect: effect of the contrast on the texts as they are, over the pairs that entered.
        effect_shuffled: the same on shuffled texts; NaN like `effect` without pairs to compare.
        mean_diff: clinical minus neutral over own pairs.
        mean_diff_shuffled: the same on shuffled texts.
        share: share of the effect kept under shuffling.
        did: the test of D - D_s; None if it cannot be tested.
        firing_original: share of texts, both members, with an activation that is not 0.
        firing_shuffled: the same for shuffled texts.
        off_distribution: the two rates differ by more than `RATE_FACTOR`.
    """

    grain: Grain
    n_shuffles: int
    n_pairs: int
    n_excluded: int
    effect: Array
    effect_shuffled: Array
    mean_diff: Array
    mean_diff_shuffled: Array
    share: EffectShare
    did: Retest | None
    firing_original: Array
    firing_shuffled: Array
    off_distribution: npt.NDArray[np.bool_]


def can_shuffle(text: str, grain: Grain) -> bool:
    """True if a text has another order: two different words or sentences that may change places."""
    if grain == "words":
        return len(set(text.split())) > 1
    if grain == "sentences":
        return len(set(sentences(text))) > 1
    return any(len(set(s.split())) > 1 for s in sentences(text))


def shuffle_text(text: str, item_id: str, grain: Grain, k: int, seed: int) -> str:
    """Order number `k` of a text; never its own order unless it has no other.

    A text of two sentences has one other order, which all k then are. Drawing the original order
    as well would shrink the difference in differences for short texts.
    """
    key = hashlib.sha256(f"{grain}/{k}/{item_id}".encode()).digest()
    generator = np.random.default_rng([seed, int.from_bytes(key[:16], "big")])
    if not can_shuffle(text, grain):
        return text
    same = " ".join(text.split())
    for _ in range(_TRIES):
        found = scramble_text(text, grain, generator)
        if found != same:
            break
    return found


def shufflable(pairs: Sequence[Pair], grain: Grain) -> npt.NDArray[np.int64]:
    """Indices of the pairs of which both members have another order."""
    return np.array(
        [
            i
            for i, pair in enumerate(pairs)
            if can_shuffle(pair.clinical.text, grain) and can_shuffle(pair.neutral.text, grain)
        ],
        dtype=np.int64,
    )


def shuffle_control(
    original: Members,
    shuffled: Members,
    name: str,
    design: PairDesign,
    config: SearchConfig,
    *,
    grain: Grain,
    n_excluded: int = 0,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> ShuffleControl:
    """Set a contrast on the texts as they are against the same texts shuffled.

    Args:
        original: [n_pairs, n_columns] each.
        shuffled: [n_shuffles, n_pairs, n_columns] each.
        name: 'all' or an emotion.
        design: these pairs.
        config: settings of the test.
        grain: what was put in another order.
        n_excluded: pairs that were left out before, to be reported; without any pair left,
            everything is NaN.
        n_bootstrap: resamples for the interval of the share.
        seed: their seed.

    Raises:
        StatisticsError: shapes that do not fit, or a value is not finite.
    """
    if shuffled.clinical.ndim != 3 or not len(shuffled.clinical):
        raise stats.StatisticsError(
            f"shuffled values have shape {shuffled.clinical.shape}; need "
            "[n_shuffles, n_pairs, n_columns] with one order or more"
        )
    if not len(design):
        return _without_pairs(shuffled, grain, n_excluded)
    d = stats.paired_differences(original.clinical, original.neutral)
    # Averaged over orders first: pairs, not orders, are the units of the test.
    d_shuffled = stats.paired_differences(
        shuffled.clinical.mean(axis=0), shuffled.neutral.mean(axis=0)
    )
    did = stats.paired_differences(d, d_shuffled)
    before, after = _firing(original), _firing(shuffled)
    own = sides(name, design).own
    return ShuffleControl(
        grain=grain,
        n_shuffles=len(shuffled.clinical),
        n_pairs=len(own),
        n_excluded=n_excluded,
        effect=effect(d, name, design),
        effect_shuffled=effect(d_shuffled, name, design),
        mean_diff=stats.mean_diff(d[own]),
        mean_diff_shuffled=stats.mean_diff(d_shuffled[own]),
        share=effect_share(d_shuffled, d, name, design, config, n=n_bootstrap, seed=seed),
        did=retest(did, name, design, config),
        firing_original=before,
        firing_shuffled=after,
        off_distribution=np.maximum(before, after) > RATE_FACTOR * np.minimum(before, after),
    )


def _without_pairs(shuffled: Members, grain: Grain, n_excluded: int) -> ShuffleControl:
    """No pair has anything to reorder."""
    none = np.full(shuffled.clinical.shape[2:], np.nan)
    share = EffectShare(none, none, none, 0)
    n_shuffles, never = len(shuffled.clinical), np.zeros(none.shape, dtype=bool)
    return ShuffleControl(
        grain, n_shuffles, 0, n_excluded, none, none, none, none, share, None, none, none, never
    )


def _firing(values: Members) -> Array:
    """Share of texts with an activation that is not 0: [n_columns]."""
    every = np.concatenate([values.clinical, values.neutral], axis=-2)
    return np.asarray((every != 0).mean(axis=tuple(range(every.ndim - 1))))
