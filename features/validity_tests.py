"""Tests of one contrast's latents on the other items of a battery.

Activations are taken on the side that a latent was found on: for one that falls on clinical texts
all signs are turned. 'Rises' is meant in that sense. A verdict says what the data show:

    effect        holds: clinical above neutral. fails: below.
    dose          over scenes told neutrally, moderately and clinically. holds: both steps rise.
                  fails: a step surely holds less than a fifth of the whole rise.
    discriminant  complex neutral texts against the neutrals. holds: they surely rise by less than a
                  fifth of the clinical effect. fails: they surely rise, and not surely so little.
    person        holds: the effect is there in the first and in the third person. fails: it surely
                  differs and is not shown in one of them.
    paraphrase    the pair told in other words. holds: the effect is there. fails: surely less than
                  a fifth of it is left.
    domains       holds: it rises in most domains, and no single domain carries it. fails: it surely
                  rises in a minority of domains only.

'Surely' means by an interval at level 1 - alpha; all else is 'unknown'. A verdict that joins two
claims needs no correction: both must hold (intersection-union test, Berger 1982). Several latents
are judged side by side; the verdicts are not adjusted for their number.

Dose, paraphrase and a missing rise are judged relative to the clinical effect, so only where that
effect is there on the same items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from affectlens.data.stimuli import Battery, Pair
from affectlens.features import stats
from affectlens.features.config import Unit
from affectlens.features.inversion import (
    Shift,
    binomial_limits,
    one_sample,
    two_sample,
    welch,
)
from affectlens.features.trend import page_trend
from affectlens.features.validation_config import ValidityConfig
from affectlens.features.validity_columns import VALIDITY_COLUMNS

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.object_]

NEGLIGIBLE = 0.2
"""Share of the clinical effect that counts as none. A convention, fixed before any result: equal
steps would each hold a half, and a fifth is the least that two dozen scenes can tell from nothing.
"""


@dataclass(frozen=True, eq=False)
class Subject:
    """Latents of one contrast and the pairs on which they are tested.

    Attributes:
        contrast: its name.
        features: [n_features] latents.
        values: [n_items, n_features] pooled activations times the side the latent was found on.
        rows: item id to row of `values`.
        battery: gives variants and items outside pairs.
        pairs: the pairs of the contrast and part.
        unit: what is exchanged or flipped as a whole.
        config: permutations, level and seed.
    """

    contrast: str
    features: tuple[int, ...]
    values: Array
    rows: Mapping[str, int]
    battery: Battery
    pairs: tuple[Pair, ...]
    unit: Unit
    config: ValidityConfig

    def of(self, ids: Sequence[str]) -> Array:
        """Activations [n_ids, n_features] of items by id."""
        return self.values[[self.rows[i] for i in ids]]

    def differences(self, pairs: Sequence[Pair]) -> Array:
        """Clinical minus neutral, [n_pairs, n_features]."""
        return self.of([p.clinical.id for p in pairs]) - self.of([p.neutral.id for p in pairs])

    def units(self, pairs: Sequence[Pair]) -> list[str]:
        """The unit of each pair."""
        return [p.cluster if self.unit == "cluster" else p.id for p in pairs]

    def mean(self, values: Array, units: Sequence[str]) -> Shift:
        """Mean with its interval, units flipped."""
        c = self.config
        return one_sample(
            values, units, alpha=c.alpha, n_permutations=c.n_permutations, seed=c.seed
        )

    def lines(
        self,
        test: str,
        group: str,
        found: Shift,
        verdict: Words | str,
        note: str = "",
        n: int | None = None,
    ) -> pd.DataFrame:
        """One row a latent (`VALIDITY_COLUMNS`)."""
        note = "; ".join(filter(None, [note, self._too_few(found, verdict)]))
        return pd.DataFrame(
            {
                "contrast": self.contrast,
                "feature": self.features,
                "test": test,
                "group": group,
                "n": found.n_units if n is None else n,
                "estimate": found.estimate,
                "low": found.low,
                "high": found.high,
                "p": found.p,
                "verdict": verdict,
                "note": note,
            },
            columns=list(VALIDITY_COLUMNS),
        )

    def untested(self, test: str, note: str) -> pd.DataFrame:
        """Rows of a test that cannot be made."""
        return self.lines(test, "verdict", _plain(self._nan(), 0), "unknown", note)

    def _nan(self) -> Array:
        return np.full(len(self.features), np.nan)

    def _too_few(self, found: Shift, verdict: Words | str) -> str:
        if found.min_p <= self.config.alpha or isinstance(verdict, str):
            return ""
        return (
            f"{found.n_units} units ({self.unit}s): the smallest attainable p is {found.min_p:.2g}"
        )


def effect(s: Subject) -> pd.DataFrame:
    """The paired difference itself, which the other tests are held against."""
    found = s.mean(s.differences(s.pairs), s.units(s.pairs))
    return s.lines("effect", "verdict", found, _side(found), "clinical minus neutral")


def dose(s: Subject) -> pd.DataFrame:
    """Neutral, moderate and clinical telling of the same scene.

    The slope per step is (clinical - neutral) / 2, the least-squares slope over three equal doses,
    which does not depend on the moderate telling; the steps do. p of the verdict line is Page's.
    """
    told = {p.id: _variants(s, p.clinical.id, "moderate") for p in s.pairs}
    pairs = [p for p in s.pairs if told[p.id]]
    if not pairs:
        return s.untested("dose", "none of these pairs has a moderate telling")
    units = s.units(pairs)
    low = s.of([p.neutral.id for p in pairs])
    middle = np.stack([s.of(told[p.id]).mean(axis=0) for p in pairs])
    high = s.of([p.clinical.id for p in pairs])
    rise, top = s.mean(middle - low, units), s.mean(high - middle, units)
    whole = s.mean(high - low, units)
    small = (_below_share(s, middle - low, high - low, units) & (whole.low > 0)) | (rise.high < 0)
    flat = (_below_share(s, high - middle, high - low, units) & (whole.low > 0)) | (top.high < 0)
    verdict = _verdict((rise.low > 0) & (top.low > 0), small | flat)
    trend = page_trend(np.stack([stats.cluster_means(x, units) for x in (low, middle, high)]))
    slope = s.mean((high - low) / 2, units)
    slope = Shift(slope.estimate, slope.low, slope.high, trend.p, slope.n_units, slope.min_p)
    monotone = (low <= middle) & (middle <= high) & (low < high)
    return pd.concat(
        [
            s.lines("dose", "verdict", slope, verdict, "slope per step, p by Page's L"),
            s.lines("dose", "neutral_to_moderate", rise, _verdict(rise.low > 0, small)),
            s.lines("dose", "moderate_to_clinical", top, _verdict(top.low > 0, flat)),
            s.lines(
                "dose", "monotone_share", _share(s, monotone), "shown", "share of scenes in order"
            ),
        ]
    )


def discriminant(s: Subject) -> pd.DataFrame:
    """Complex neutral texts against the neutrals of the pairs; unmatched, so by Welch's t.

    "Rises by less than a fifth of the effect" is complex < neutral + (clinical - neutral) / 5, a
    comparison of two groups; the uncertainty of the effect is part of it. Complex neutral texts may
    be of another kind than the neutrals (exposition, not a scene), so a failure can also mean that
    the latent answers to the kind of text.
    """
    ids = [i.id for i in s.battery.items if i.split == "complex_neutral"]
    if not ids:
        return s.untested("discriminant", "the battery has no complex neutral items")
    units = s.units(s.pairs)
    neutral = s.of([p.neutral.id for p in s.pairs])
    d = s.differences(s.pairs)
    whole = s.mean(d, units)
    complex_ = s.of(ids)
    usual = stats.cluster_means(neutral, units)
    raised = stats.cluster_means(neutral + NEGLIGIBLE * d, units)
    rise = welch(complex_, usual, alpha=s.config.alpha)
    margin = welch(complex_, raised, alpha=s.config.alpha)
    there = whole.low > 0
    bounded = there & (margin.high < 0)
    verdict = _verdict(bounded, (rise.low > 0) & ~bounded)
    share = _plain(_over(rise.estimate, np.where(there, whole.estimate, 0.0)), len(ids))
    note = "complex neutral minus neutral"
    if not there.all():
        note += "; 'holds' needs a clinical effect on these pairs"
    return pd.concat(
        [
            s.lines("discriminant", "verdict", rise, verdict, note),
            s.lines(
                "discriminant",
                "share_of_effect",
                share,
                "shown",
                "rise over clinical effect; NaN where the effect is not shown",
            ),
        ]
    )


def person(s: Subject) -> pd.DataFrame:
    """The effect in pairs told in the first and in the third person, and their difference.

    By cluster, clusters that have both persons are compared within; by pair, the two groups.
    """
    groups = {
        name: [p for p in s.pairs if p.clinical.person == name] for name in ("first", "third")
    }
    if not all(groups.values()):
        return s.untested("person", "these pairs are all told in the same person")
    found = {name: s.mean(s.differences(g), s.units(g)) for name, g in groups.items()}
    apart = _apart(s, groups["first"], groups["third"])
    if apart is None:
        return s.untested("person", "no cluster has pairs in both persons")
    first, third = found["first"], found["third"]
    shown = (first.low > 0) & (third.low > 0)
    differs = (apart.low > 0) | (apart.high < 0)
    verdict = _verdict(shown, differs & ~shown)
    return pd.concat(
        [
            s.lines("person", "verdict", apart, verdict, "first minus third"),
            s.lines("person", "first", first, _side(first)),
            s.lines("person", "third", third, _side(third)),
        ]
    )


def paraphrase(s: Subject) -> pd.DataFrame:
    """The same pairs told in other words, both members; several tellings are averaged."""
    told = {
        m.id: _variants(s, m.id, "paraphrase") for p in s.pairs for m in (p.clinical, p.neutral)
    }
    pairs = [p for p in s.pairs if told[p.clinical.id] and told[p.neutral.id]]
    if not pairs:
        return s.untested("paraphrase", "none of these pairs is paraphrased on both sides")
    units = s.units(pairs)
    original = s.differences(pairs)
    other = np.stack(
        [
            s.of(told[p.clinical.id]).mean(axis=0) - s.of(told[p.neutral.id]).mean(axis=0)
            for p in pairs
        ]
    )
    found, change = s.mean(other, units), s.mean(other - original, units)
    whole = s.mean(original, units)
    lost = _below_share(s, other, original, units) & (whole.low > 0)
    verdict = _verdict(found.low > 0, lost | (found.high < 0))
    moved = original != 0
    agree = np.where(moved, np.sign(other) == np.sign(original), 0).sum(axis=0)
    share = _plain(_over(agree.astype(float), moved.sum(axis=0).astype(float)), len(pairs))
    note = "Pearson over pairs; bounds by Fisher's z take pairs as independent"
    correlation = _correlation(original, other, s.config.alpha)
    agreed = "share of pairs of the same sign among those with an original difference"
    return pd.concat(
        [
            s.lines("paraphrase", "verdict", found, verdict, "clinical minus neutral, paraphrased"),
            s.lines("paraphrase", "change", change, "shown", "paraphrased minus original"),
            s.lines("paraphrase", "correlation", correlation, "shown", note),
            s.lines("paraphrase", "same_sign", share, "shown", agreed),
        ]
    )


def domains(s: Subject) -> pd.DataFrame:
    """Leave one domain out, and the effect in each domain (a domain is a cluster of the battery).

    The share counts a domain without any difference as one that does not rise.
    """
    names = np.array([p.cluster for p in s.pairs], dtype=object)
    d, units = s.differences(s.pairs), np.array(s.units(s.pairs), dtype=object)
    each = sorted(set(names))
    if len(each) < 2:
        return s.untested("domains", "these pairs lie in a single domain")
    left = [s.mean(d[names != name], list(units[names != name])) for name in each]
    worst = Shift(
        np.min([f.estimate for f in left], axis=0),
        np.min([f.low for f in left], axis=0),
        np.min([f.high for f in left], axis=0),
        np.max([f.p for f in left], axis=0),
        len(each),
        max(f.min_p for f in left),
    )
    means = np.stack([d[names == name].mean(axis=0) for name in each])
    share = _share(s, means > 0)
    verdict = _verdict((worst.low > 0) & (share.estimate > 0.5), share.high < 0.5)
    lines = [
        s.lines("domains", "verdict", worst, verdict, "smallest mean with one domain left out"),
        s.lines("domains", "share_rising", share, "shown", "share of domains that rise"),
        s.lines("domains", "weakest", _plain(means.min(axis=0), len(each)), "shown",
                "smallest mean of a domain"),
    ]  # fmt: skip
    for i, name in enumerate(each):
        inside = names == name
        n = int(inside.sum())
        lines.append(s.lines("domain", f"{name} mean", _plain(means[i], n), "shown"))
        lines.append(s.lines("domain", f"{name} d_z", _plain(stats.d_z(d[inside]), n), "shown"))
    return pd.concat(lines)


def _variants(s: Subject, item_id: str, split: str) -> list[str]:
    return [i.id for i in s.battery.variants(item_id) if i.split == split]


def _side(found: Shift) -> Words:
    return _verdict(found.low > 0, found.high < 0)


def _verdict(holds: Mask, fails: Mask) -> Words:
    return np.where(holds, "holds", np.where(fails, "fails", "unknown")).astype(object)


def _below_share(s: Subject, part: Array, whole: Array, units: Sequence[str]) -> Mask:
    """Whether `part` is surely less than the negligible share of `whole`."""
    return s.mean(part - NEGLIGIBLE * whole, units).high < 0


def _apart(s: Subject, first: Sequence[Pair], third: Sequence[Pair]) -> Shift | None:
    a, b = s.differences(first), s.differences(third)
    c = s.config
    if s.unit == "pair":
        return two_sample(a, b, alpha=c.alpha, n_permutations=c.n_permutations, seed=c.seed)
    names_a = np.array([p.cluster for p in first], dtype=object)
    names_b = np.array([p.cluster for p in third], dtype=object)
    both = sorted(set(names_a) & set(names_b))
    if not both:
        return None
    within = [a[names_a == n].mean(axis=0) - b[names_b == n].mean(axis=0) for n in both]
    return s.mean(np.stack(within), both)


def _plain(estimate: Array, n: int) -> Shift:
    """An estimate without interval or test."""
    none = np.full(len(estimate), np.nan)
    return Shift(estimate, none, none, none, n, 0.0)


def _over(top: Array, bottom: Array) -> Array:
    return np.where(bottom != 0, top / np.where(bottom != 0, bottom, 1.0), np.nan)


def _share(s: Subject, hits: Mask) -> Shift:
    """Share of rows [n, n_features] with the exact binomial interval."""
    n, level = len(hits), 1 - s.config.alpha
    bounds = [binomial_limits(int(k), n, level) for k in hits.sum(axis=0)]
    return Shift(
        hits.mean(axis=0),
        np.array([b.low for b in bounds]),
        np.array([b.high for b in bounds]),
        np.full(hits.shape[1], np.nan),
        n,
        0.0,
    )


def _correlation(a: Array, b: Array, alpha: float) -> Shift:
    """Pearson's r down the rows with Fisher's interval; NaN where a side is constant or n < 4."""
    n = len(a)
    x, y = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    r = _over((x * y).sum(axis=0), size)
    if n < 4:
        return _plain(r, n)
    z = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    half = special.ndtri(1 - alpha / 2) / np.sqrt(n - 3)
    return Shift(r, np.tanh(z - half), np.tanh(z + half), np.full(len(r), np.nan), n, 0.0)
