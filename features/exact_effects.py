"""The exact effect of many single latents on many texts, by running each edit.

Gradients give the effects of all latents at once, to first order (`attribution`); here each latent
is edited by itself and the model run, which is what such estimates are checked against. Latents are
sparse, so for edits that act on active latents alone (`Ablate`, `Scale`) most runs are not needed:
a latent that is zero at every token of a row changes nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from affectlens.data.errors import ConfigError
from affectlens.features.edit_plan import ErrorTerm
from affectlens.features.jobs import Job
from affectlens.features.measure import Meter
from affectlens.features.scopes import Scope
from affectlens.features.specs import Ablate, Spec

Floats = npt.NDArray[np.float64]

FEATURES_AT_ONCE = 512
"""Latents whose edited rows are put into batches together."""


@dataclass(frozen=True, eq=False)
class ExactEffects:
    """Effects of single latents.

    Attributes:
        features: the latents, in the order asked for.
        names: columns of the readout.
        effect: float64 [n_features, n_texts, n_names], edited minus unedited readout (nats).
        kl: float64 [n_features, n_texts], see `Measured.kl`.
        n_run: rows (a text with one suffix) that were run.
        n_skipped: rows that an edit left as they are: their part of the effect is exactly zero.
    """

    features: tuple[int, ...]
    names: tuple[str, ...]
    effect: Floats
    kl: Floats
    n_run: int
    n_skipped: int

    def mean(self, name: str) -> Floats:
        """Mean effect of each latent on one column over texts, [n_features].

        Raises:
            ConfigError: there is no such column.
        """
        if name not in self.names:
            raise ConfigError(
                f"there is no readout {name!r}; allowed are {', '.join(map(repr, self.names))}"
            )
        mean: Floats = self.effect[:, :, self.names.index(name)].mean(1)
        return mean


def ablation(feature: int) -> Spec:
    """The spec that takes one latent away."""
    return Ablate((feature,))


def exact_effects(
    meter: Meter,
    features: Sequence[int],
    make_spec: Callable[[int], Spec] = ablation,
    *,
    scope: Scope = "content",
    error: ErrorTerm = "keep",
    texts: Sequence[int] | None = None,
    done: Callable[[int], object] | None = None,
) -> ExactEffects:
    """The effect of editing each latent by itself on each text.

    Args:
        meter: the prepared texts.
        features: latents.
        make_spec: what is done to a latent, such as `lambda f: Clamp((f,), (6.0,))`.
        scope: which tokens are edited.
        error: what becomes of the SAE's error, see `interventions.Intervention`.
        texts: indices of the texts; None for all.
        done: called as the work goes on with the number of latents that were finished since.

    Raises:
        ConfigError: no latent, or see `Meter.measure_many`.
    """
    if not len(features):
        raise ConfigError("exact_effects needs at least one latent")
    chosen = tuple(int(f) for f in features)
    n_texts = meter.n_texts if texts is None else len(texts)
    effect = np.empty((len(chosen), n_texts, len(meter.names)))
    kl, n_run, n_skipped = np.empty((len(chosen), n_texts)), 0, 0
    for start in range(0, len(chosen), FEATURES_AT_ONCE):
        part = chosen[start : start + FEATURES_AT_ONCE]
        jobs = [Job([make_spec(f)], scope, error, texts) for f in part]
        for i, measured in enumerate(meter.measure_many(jobs, done), start):
            effect[i], kl[i] = measured.effect, measured.kl
            n_run += measured.n_run
            n_skipped += measured.n_skipped
    return ExactEffects(chosen, meter.names, effect, kl, n_run, n_skipped)
