"""What the screen does with a model: estimates for all latents, measurements for some.

Texts are the discovery pairs alone, so that what is picked by its effect can be confirmed on the
others. Ablations are read on a contrast's own clinical items, clamps on the neutral items of every
emotion, as `effects` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, Pair
from affectlens.features.attribution import FirstOrder, attribute
from affectlens.features.contrasts import ALL
from affectlens.features.jobs import Job, Measured
from affectlens.features.measure import Meter
from affectlens.features.readouts import Readout
from affectlens.features.specs import Ablate, Clamp
from affectlens.features.text_means import text_means
from affectlens.sae.model import SparseAutoencoder

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ScreenTexts:
    """Discovery pairs on which effects are estimated and measured."""

    pairs: tuple[Pair, ...]

    @classmethod
    def of(cls, battery: Battery, parts: Mapping[str, str], max_pairs: int | None) -> ScreenTexts:
        """The discovery pairs of a battery, or some of them, spread over emotions and clusters.

        Raises:
            ConfigError: the battery holds none of them.
        """
        clusters = {p.cluster for p in battery.pairs if parts.get(p.cluster) == "discovery"}
        if not clusters:
            raise ConfigError(
                f"the search split names {len(parts)} clusters, of which this battery holds no "
                "discovery pair; use the battery that was searched"
            )
        return cls(battery.select(clusters=clusters, limit=max_pairs).pairs)

    @property
    def clinical(self) -> list[str]:
        """Texts of the clinical members."""
        return [p.clinical.text for p in self.pairs]

    @property
    def neutral(self) -> list[str]:
        """Texts of the neutral members."""
        return [p.neutral.text for p in self.pairs]

    def own(self, contrast: str) -> Index:
        """Indices of a contrast's own pairs."""
        own = [i for i, p in enumerate(self.pairs) if contrast in (ALL, p.emotion)]
        return np.array(own, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Estimates:
    """First-order effects of every latent on one contrast's readout, [d_sae] each (nats).

    Attributes:
        ablate: of setting it to 0, own clinical items.
        neutral: of setting it to its mean over the matched neutral, own clinical items.
        clamp: of clamping it, neutral items.
        ig_ablate: as `ablate`, by integrated gradients; None without steps.
        ig_neutral: as `neutral`, likewise.
    """

    ablate: Array
    neutral: Array
    clamp: Array
    ig_ablate: Array | None
    ig_neutral: Array | None


class Screened:
    """A model, its SAE and the texts, with the estimates that one pass over them gives.

    Args:
        lm: the model.
        sae: its autoencoder.
        texts: pairs.
        readout: what is read.
        columns: contrast -> its column of the readout.
        targets: [d_sae], what each latent is clamped to.
        n_steps: steps of integrated gradients.
        batch_size: rows in one pass.
    """

    def __init__(
        self,
        lm: LanguageModel,
        sae: SparseAutoencoder,
        texts: ScreenTexts,
        readout: Readout,
        columns: Mapping[str, int],
        targets: Array,
        *,
        n_steps: int,
        batch_size: int,
    ) -> None:
        self.lm, self.sae, self.texts, self.readout = lm, sae, texts, readout
        self.columns, self.targets = columns, targets
        self._n_steps, self._batch_size = n_steps, batch_size
        self.write_scale = 1.0
        self._active: tuple[int, ...] = ()

    def estimates(self, done: Callable[[int], None]) -> dict[str, Estimates]:
        """Estimates for every contrast; `done(1)` after each pass: four, or two without steps."""
        n = len(self.texts.pairs)
        own = [self.columns.get(p.emotion, 0) for p in self.texts.pairs]
        views = [np.array(own, dtype=np.int64)]
        if ALL in self.columns:
            views.append(np.full(n, self.columns[ALL], dtype=np.int64))
        means = text_means(
            self.lm, self.sae, self.texts.neutral, batch_size=self._batch_size
        ).latents
        here = self._attribute(self.texts.clinical, views)
        self._active = tuple(np.unique(here[0].ablate.indices).tolist())
        done(1)
        to_zero = to_neutral = None
        if self._n_steps:
            to_zero = self._attribute(self.texts.clinical, views, n_steps=self._n_steps)
            done(1)
            to_neutral = self._attribute(
                self.texts.clinical, views, n_steps=self._n_steps, targets=means
            )
            done(1)
        distinct = sorted(set(self.columns.values()))
        clamps = self._attribute(
            self.texts.neutral, [np.full(n, c, dtype=np.int64) for c in distinct]
        )
        done(1)
        self.write_scale = float(clamps[0].scale.mean())
        everywhere = np.arange(n)
        found = {}
        for contrast, column in self.columns.items():
            view, rows = int(contrast == ALL), self.texts.own(contrast)
            found[contrast] = Estimates(
                ablate=here[view].mean_ablate(rows),
                neutral=here[view].mean_set(self.sae, means, rows),
                clamp=clamps[distinct.index(column)].mean_set(self.sae, self.targets, everywhere),
                ig_ablate=to_zero[view].mean_ablate(rows) if to_zero else None,
                ig_neutral=to_neutral[view].mean_set(self.sae, means, rows) if to_neutral else None,
            )
        return found

    def _attribute(
        self,
        texts: Sequence[str],
        views: Sequence[Index],
        *,
        n_steps: int = 0,
        targets: npt.NDArray[np.float32] | None = None,
    ) -> list[FirstOrder]:
        return attribute(
            self.lm,
            self.sae,
            texts,
            self.readout,
            views,
            targets=targets,
            n_steps=n_steps,
            batch_size=self._batch_size,
        )

    @cached_property
    def _clinical(self) -> Meter:
        return Meter(
            self.lm, self.sae, self.texts.clinical, self.readout, batch_size=self._batch_size
        )

    @cached_property
    def _neutral(self) -> Meter:
        return Meter(
            self.lm, self.sae, self.texts.neutral, self.readout, batch_size=self._batch_size
        )

    def ablated(
        self, asked: Mapping[str, Sequence[int]], done: Callable[[int], None]
    ) -> dict[str, dict[int, float]]:
        """Measured effects of ablating latents one by one: contrast -> latent -> mean (nats).

        A latent is measured on the own items of every contrast that asks for it; contrasts whose
        items are among them get its effect, too.
        """
        where: dict[int, set[int]] = {}
        for contrast, features in asked.items():
            for feature in features:
                where.setdefault(feature, set()).update(self.texts.own(contrast).tolist())
        rows = {f: np.array(sorted(w), dtype=np.int64) for f, w in where.items()}
        jobs = [Job([Ablate((f,))], texts=texts.tolist()) for f, texts in rows.items()]
        measured = self._clinical.measure_many(jobs, done=done)
        found: dict[str, dict[int, float]] = {contrast: {} for contrast in self.columns}
        for (feature, texts), result in zip(rows.items(), measured, strict=True):
            for contrast, column in self.columns.items():
                own = np.isin(texts, self.texts.own(contrast))
                if own.any() and own.sum() == len(self.texts.own(contrast)):
                    found[contrast][feature] = float(result.effect[own, column].mean())
        return found

    def clamped(
        self, features: Sequence[int], done: Callable[[int], None]
    ) -> dict[str, dict[int, float]]:
        """Measured effects of clamping latents one by one: contrast -> latent -> mean (nats)."""
        jobs = [Job([Clamp((f,), (float(self.targets[f]),))]) for f in features]
        measured = self._neutral.measure_many(jobs, done=done)
        return {
            contrast: {
                f: float(m.effect[:, column].mean())
                for f, m in zip(features, measured, strict=True)
            }
            for contrast, column in self.columns.items()
        }

    def all_ablated(self) -> dict[str, float | None]:
        """Contrast -> effect of ablating all latents at once; None without own items.

        Those that `estimates` saw active are ablated, which is the same.
        """
        if not self._active:
            return dict.fromkeys(self.columns)
        result: Measured = self._clinical.measure(Job([Ablate(self._active)]))
        found: dict[str, float | None] = {}
        for contrast, column in self.columns.items():
            own = self.texts.own(contrast)
            found[contrast] = float(result.effect[own, column].mean()) if len(own) else None
        return found
