"""Pooled activations as pairs: split, filtered, and dense only for latents that are looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from affectlens.data.errors import StimulusError
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign, Part, split_clusters
from affectlens.features.permutation import StatisticsError

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Members:
    """Both members of every pair for a few latents: float64 [..., n_pairs, n_latents], dense."""

    clinical: Array
    neutral: Array

    @property
    def differences(self) -> Array:
        """Clinical minus neutral, of the same shape."""
        return self.clinical - self.neutral

    def take(self, columns: npt.ArrayLike) -> Members:
        """Some of the latents."""
        chosen = np.asarray(columns, dtype=np.int64)
        return Members(self.clinical[..., chosen], self.neutral[..., chosen])

    def swapped(self, swap: npt.NDArray[np.bool_]) -> Members:
        """Members of the pairs [n_pairs] marked True change places."""
        at = swap[:, None]
        return Members(
            np.where(at, self.neutral, self.clinical), np.where(at, self.clinical, self.neutral)
        )


@dataclass(frozen=True, eq=False)
class PairData:
    """Pairs with their activations, as a search would test them.

    Attributes:
        design: the pairs; row i of `clinical` and of `neutral` is pair i.
        parts: cluster -> part.
        clinical: sparse [n_pairs, d_sae].
        neutral: the same shape.
        tested: latents active in enough discovery texts; blind to the labels.
    """

    design: PairDesign
    parts: Mapping[str, Part]
    clinical: sparse.csc_array
    neutral: sparse.csc_array
    tested: Rows

    @classmethod
    def of(cls, values: sparse.csc_array, design: PairDesign, config: SearchConfig) -> Self:
        """Pairs of a design, split and filtered by the settings of a search.

        Raises:
            StimulusError: no pairs, or a cluster with two emotions.
        """
        if not len(design):
            raise StimulusError("the design has no pairs; a search needs one at least")
        parts = split_clusters(
            design.clusters, design.emotions, config.confirmation_share, config.seed
        )
        by_row = values.tocsr()
        clinical, neutral = by_row[design.clinical].tocsc(), by_row[design.neutral].tocsc()
        rows = design.rows(parts, "discovery")
        active = sum(n_active(m.tocsr()[rows]) for m in (clinical, neutral))
        own = np.arange(len(design))
        return cls(
            replace(design, clinical=own, neutral=own),
            parts,
            clinical,
            neutral,
            np.flatnonzero(active >= config.min_items),
        )

    def drawn(self, max_latents: int, rng: np.random.Generator) -> Members:
        """At most `max_latents` of the tested latents, drawn at random, ascending."""
        chosen = self.tested
        if len(chosen) > max_latents:
            chosen = np.sort(rng.choice(chosen, max_latents, replace=False))
        return self.members(chosen)

    def members(self, latents: Rows) -> Members:
        """Both members of every pair for some latents."""
        return Members(
            self.clinical[:, latents].toarray().astype(float),
            self.neutral[:, latents].toarray().astype(float),
        )

    def sides(self, latents: Rows) -> tuple[sparse.csc_array, sparse.csc_array]:
        """Clinical and neutral members of every pair for some latents: sparse float64."""
        return self.clinical[:, latents].astype(float), self.neutral[:, latents].astype(float)

    def differences(self, latents: Rows) -> sparse.csc_array:
        """Clinical minus neutral for some latents: sparse float64 [n_pairs, n_latents]."""
        clinical, neutral = self.sides(latents)
        return sparse.csc_array(clinical - neutral)

    def labels(self, contrast: str) -> PairDesign:
        """The design with so few emotions that little but `contrast` is tested."""
        rest = [e for e in self.design.order if e != contrast]
        return replace(self.design, order=(contrast, *rest[:1]) if contrast != "all" else ())


def as_sparse(pooled: npt.ArrayLike | sparse.sparray | sparse.spmatrix) -> sparse.csc_array:
    """Pooled activations by column, checked.

    Raises:
        StatisticsError: not two-dimensional, or a value is NaN or infinite.
    """
    found: Any = pooled if sparse.issparse(pooled) else np.asarray(pooled)
    if found.ndim != 2:
        raise StatisticsError(f"pooled has shape {found.shape}; need [n_items, d_sae]")
    values = sparse.csc_array(found)
    if not values.has_canonical_format:
        values = values.copy()  # the caller's matrix must not change
        values.sum_duplicates()
    if not bool(np.isfinite(values.data).all()):
        raise StatisticsError(
            "pooled holds NaN or infinite activations; encode again and leave such texts out"
        )
    return values


def n_active(members: sparse.csc_array | sparse.csr_array) -> Rows:
    """Texts in which each latent is active: [n_latents]."""
    return np.asarray((members > 0).sum(axis=0)).ravel()
