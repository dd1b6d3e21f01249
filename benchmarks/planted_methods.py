"""What each method reports in one data set of planted.py: ours and the peers.

Names and rules are said there. Every function returns, for each method, bool [n_latents].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy import stats as scipy_stats

from affectlens.features import stats
from affectlens.features.config import SearchConfig
from affectlens.features.contrasts import ALL, Contrast, run_contrasts
from affectlens.features.design import PairDesign, Part, split_clusters
from affectlens.features.pair_data import Members

ALPHA = 0.05
N_PLANTED = 20
CUT = 0.1
"""Distance from .5 at which the AUROC peer reports a latent."""
OURS = ("max-T", "BH", "confirmed", "max-T, no split", "max-T over pairs")
PEERS = {
    "unpaired t, BH": "BH",
    "paired t, BH": "BH",
    "t of clusters, BH": "BH",
    "Wilcoxon, Bonferroni": "max-T",
    "AUROC above .6": "confirmed",
    "top 20 by mean": "confirmed",
}
"""Peer -> the one of ours that it is held against."""
Found = dict[str, np.ndarray]


def ours(target: str, members: Members, design: PairDesign, seed: int) -> Found:
    config = SearchConfig(unit_emotion="cluster", seed=seed)
    parts = split_clusters(design.clusters, design.emotions, config.confirmation_share, seed)
    rest = tuple(e for e in design.order if e != target)[:1]
    tested = replace(design, order=() if target == ALL else (target, *rest))

    def search(config: SearchConfig, parts: Mapping[str, Part]) -> Contrast:
        found = run_contrasts(members.differences, tested, parts, config)
        return next(c for c in found if c.name == target)

    main = search(config, parts)
    over_pairs = config.model_copy(update={"unit": "pair", "unit_emotion": "pair"})
    whole: dict[str, Part] = dict.fromkeys(parts, "discovery")
    return {
        "max-T": main.p_fwer <= ALPHA,
        "BH": stats.bh(main.p) <= ALPHA,
        "confirmed": main.confirmed(ALPHA),
        "max-T, no split": search(config, whole).p_fwer <= ALPHA,
        "max-T over pairs": search(over_pairs, parts).p_fwer <= ALPHA,
    }


def peers(target: str, members: Members, design: PairDesign) -> Found:
    d = members.differences
    names = list(design.clusters)
    means = stats.cluster_means(d, names)
    emotions = np.asarray(design.emotions, dtype=object)
    if target == ALL:
        one, other = members.clinical, members.neutral
        paired = scipy_stats.ttest_1samp(d, 0.0).pvalue
        clusters = scipy_stats.ttest_1samp(means, 0.0).pvalue
        ranks = scipy_stats.wilcoxon(d, axis=0, method="asymptotic").pvalue
    else:
        own = emotions == target
        one = members.clinical[own]
        other = np.concatenate([members.clinical[~own], members.neutral])
        owner = dict(zip(names, own, strict=True))
        mine = np.array([owner[c] for c in sorted(set(names))])
        paired = scipy_stats.ttest_ind(d[own], d[~own], equal_var=False).pvalue
        clusters = scipy_stats.ttest_ind(means[mine], means[~mine]).pvalue
        ranks = scipy_stats.mannwhitneyu(d[own], d[~own], method="asymptotic").pvalue
    unpaired = scipy_stats.ttest_ind(one, other, equal_var=False).pvalue
    difference = np.abs(one.mean(axis=0) - other.mean(axis=0))
    top = np.zeros(len(difference), dtype=bool)
    top[np.argsort(-difference)[:N_PLANTED]] = True
    return {
        "unpaired t, BH": scipy_bh(unpaired),
        "paired t, BH": scipy_bh(paired),
        "t of clusters, BH": scipy_bh(clusters),
        "Wilcoxon, Bonferroni": known(ranks) * d.shape[1] <= ALPHA,
        "AUROC above .6": np.abs(stats.auroc(one, other) - 0.5) > CUT,
        "top 20 by mean": top,
    }


def known(p: np.ndarray) -> np.ndarray:
    """NaN (a latent without any difference) as 1."""
    return np.nan_to_num(p, nan=1.0)


def scipy_bh(p: np.ndarray) -> np.ndarray:
    return scipy_stats.false_discovery_control(known(p)) <= ALPHA
