"""Statistics of matched pairs, gathered from the modules that define them.

    effect_sizes  mean difference, d_z, AUROC, presence and magnitude, intraclass correlation
    signed_rank   Wilcoxon's signed-rank test
    permutation   sign-flip and label permutation tests with max-T
    cluster_flip  sign flips of pairs, studentised by clusters
    corrections   Holm, Benjamini-Hochberg, Benjamini-Yekutieli
    intervals     bootstrap intervals over clusters
    power         what a design can find

Arrays put units (pairs or clusters) in the rows and features in the columns; a one-dimensional
array is one feature.
"""

from affectlens.features.cluster_flip import ClusterFlip, cluster_flip
from affectlens.features.corrections import bearable, bh, by, holm
from affectlens.features.effect_sizes import (
    Icc,
    Magnitude,
    Presence,
    auroc,
    auroc_paired,
    cluster_means,
    cluster_totals,
    d_z,
    design_effect,
    hedges_factor,
    hedges_g,
    icc,
    magnitude,
    mean_diff,
    paired_differences,
    presence,
    wins,
)
from affectlens.features.intervals import (
    Interval,
    Intervals,
    cluster_bootstrap,
    cluster_intervals,
    resample_counts,
)
from affectlens.features.permutation import (
    LabelPermutation,
    SignFlip,
    StatisticsError,
    as_columns,
    label_permutation,
    min_attainable_p,
    sign_flip,
)
from affectlens.features.power import (
    detectable_with_clusters,
    lowest_icc,
    min_detectable_between,
    min_detectable_d_z,
    power_t,
)
from affectlens.features.signed_rank import Wilcoxon, wilcoxon

__all__ = [
    "ClusterFlip",
    "Icc",
    "Interval",
    "Intervals",
    "LabelPermutation",
    "Magnitude",
    "Presence",
    "SignFlip",
    "StatisticsError",
    "Wilcoxon",
    "as_columns",
    "auroc",
    "auroc_paired",
    "bearable",
    "bh",
    "by",
    "cluster_bootstrap",
    "cluster_flip",
    "cluster_intervals",
    "cluster_means",
    "cluster_totals",
    "d_z",
    "design_effect",
    "detectable_with_clusters",
    "hedges_factor",
    "hedges_g",
    "holm",
    "icc",
    "label_permutation",
    "lowest_icc",
    "magnitude",
    "mean_diff",
    "min_attainable_p",
    "min_detectable_between",
    "min_detectable_d_z",
    "paired_differences",
    "power_t",
    "presence",
    "resample_counts",
    "sign_flip",
    "wilcoxon",
    "wins",
]
