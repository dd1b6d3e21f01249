"""One intervention on a set of latents: its specs, and its scaling to a wanted length.

With z the activation at a token, a set F and a strength s, the wanted values are

    ablate_zero     0
    ablate_mean     firing rate x mean when active, on held-out text
    ablate_neutral  mean over the tokens of the matched neutral text
    patch_clinical  mean over the tokens of the clinical text (in its neutral)
    clamp           s x largest held-out activation
    min_clamp       the larger of z and that
    scale           s z
    add             nothing is set; s ||x|| is added along the sum of the unit decoder rows
    project_out     nothing is set; the span of the decoder rows is removed

A control that writes another length than the chosen set is scaled by a factor c: the values that
are set for clamps, the change itself for the other ones. 'add' has its length by construction,
'project_out' cannot be scaled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from affectlens.features.controls import clamp_targets, corpus_means
from affectlens.features.effect_study import EffectStudy, Rows, Texts
from affectlens.features.jobs import SpecsFor
from affectlens.features.specs import (
    Ablate,
    AddDirection,
    AddLatents,
    Clamp,
    MinClamp,
    PerRow,
    ProjectOut,
    Scale,
    SetRows,
    Spec,
)
from affectlens.features.written_norms import Array, NewValues

Specs = Sequence[Spec] | SpecsFor

MOST = 10.0
"""A control's change is scaled by at most this factor; what is left shows in its norm_ratio."""
_LINEAR = ("ablate_zero", "ablate_mean", "ablate_neutral", "patch_clinical", "scale")
_TINY = 1e-3


@dataclass(frozen=True, eq=False)
class LatentEdit:
    """An intervention at one strength on some texts.

    Attributes:
        study: what is shared.
        texts: texts that are edited.
        kind: the intervention.
        strength: s of the module's table; ignored where there is none.
    """

    study: EffectStudy
    texts: Texts
    kind: str
    strength: float

    def specs(self, features: Sequence[int], factor: float = 1.0) -> Specs:
        """What to apply, scaled by `factor`.

        Raises:
            ConfigError: no statistics of held-out text, or a clamp of a latent that never fired.
        """
        own = tuple(int(f) for f in features)
        if self.kind == "ablate_zero":
            return [Ablate(own)] if factor == 1 else [Scale(own, 1 - factor)]
        if self.kind == "scale":
            return [Scale(own, 1 + factor * (self.strength - 1))]
        if self.kind == "add":
            return [AddLatents(own, (self._each(own),) * len(own))]
        if self.kind == "project_out":
            return [ProjectOut(self.study.sae.W_dec[list(own)].detach())]
        if self.kind in ("clamp", "min_clamp"):
            values = tuple(float(v) for v in factor * self._values(own))
            return [Clamp(own, values) if self.kind == "clamp" else MinClamp(own, values)]
        if self.kind == "ablate_mean":
            return self._towards(own, self._values(own), factor)
        return self._towards_rows(own, self._values(own), factor)

    def on_any_text(self, features: Sequence[int], factor: float = 1.0) -> Sequence[Spec]:
        """The same for texts without a partner: values of partners are replaced by their mean."""
        own = tuple(int(f) for f in features)
        if self.kind not in ("ablate_neutral", "patch_clinical"):
            specs = self.specs(own, factor)
            assert not callable(specs)
            return specs
        return self._towards(own, self._values(own).mean(0), factor)

    def total(self, features: Sequence[int], rows: Rows, factor: float = 1.0) -> float:
        """Length of the change summed over the tokens of some texts."""
        tokens = self.texts.tokens_of(rows)
        if self.kind == "project_out":
            return tokens.total_projected(features)
        if self.kind == "add":
            return abs(self.strength) * tokens.total_norm()
        return tokens.total(features, self._new(tuple(features), factor))

    def factor(self, features: Sequence[int], rows: Rows, wanted: float) -> float:
        """Factor at which the change has the length `wanted`; 1 where none can be found."""
        if self.kind in ("add", "project_out") or not wanted > 0:
            return 1.0
        have = self.total(features, rows)
        if not have > 0 or (self.kind not in _LINEAR and self.strength == 0):
            return 1.0
        if self.kind in _LINEAR:
            # Where the SAE rescales each token, a shift of the stream is none of the latents.
            if self.study.sae.normalises_at_run_time and self.kind not in ("ablate_zero", "scale"):
                return 1.0
            return min(wanted / have, MOST)
        return self._found(features, rows, wanted)

    def _found(self, features: Sequence[int], rows: Rows, wanted: float) -> float:
        """Factor on set values, by bisection on its logarithm."""

        def away(log_factor: float) -> float:
            return self.total(features, rows, math.exp(log_factor)) - wanted

        low, high = -math.log(MOST), math.log(MOST)
        ends = away(low), away(high)
        if ends[0] * ends[1] > 0:
            return math.exp(low if abs(ends[0]) < abs(ends[1]) else high)
        return math.exp(float(brentq(away, low, high, xtol=1e-4)))

    def _each(self, own: tuple[int, ...]) -> float:
        """Strength of each unit row at which their sum has the wanted length."""
        rows = self.study.sae.W_dec[list(own)].detach().double()
        together = float((rows / rows.norm(dim=-1, keepdim=True)).sum(0).norm())
        return self.strength / max(together, _TINY)

    def _values(self, own: tuple[int, ...]) -> Array:
        """Values that are set: [n_features], or [n_texts, n_features] where texts differ."""
        if self.kind in ("clamp", "min_clamp"):
            return clamp_targets(self.study.stats, own, self.strength)
        if self.kind == "ablate_mean":
            return corpus_means(self.study.stats, own)
        neutral = self.kind == "ablate_neutral"
        means = self.study.neutral_means if neutral else self.study.clinical_means
        return np.asarray(means.latents[:, list(own)], dtype=np.float64)

    def _new(self, own: tuple[int, ...], factor: float) -> NewValues:
        if self.kind == "ablate_zero":
            return lambda old, _: (1 - factor) * old
        if self.kind == "scale":
            return lambda old, _: (1 + factor * (self.strength - 1)) * old
        values = self._values(own)

        def new(old: Array, text: Rows) -> Array:
            wanted = values[text] if values.ndim == 2 else np.broadcast_to(values, old.shape)
            if self.kind in _LINEAR:
                return old + factor * (wanted - old)
            return np.maximum(old, factor * wanted) if self.kind == "min_clamp" else factor * wanted

        return new

    def _set_rows(self, own: tuple[int, ...], values: Array) -> SpecsFor:
        return lambda texts: [SetRows(own, values[texts])]

    def _towards(self, own: tuple[int, ...], values: Array, factor: float) -> Sequence[Spec]:
        """`factor` of the way from the present values to the same [n_features] in every text."""
        if factor == 1:
            return [Clamp(own, tuple(float(v) for v in values))]
        return [Scale(own, 1 - factor), AddDirection(self._added(own, factor * values))]

    def _towards_rows(self, own: tuple[int, ...], values: Array, factor: float) -> SpecsFor:
        """The same with values of their own [n_texts, n_features]."""
        if factor == 1:
            return self._set_rows(own, values)
        added, shrunk = self._added(own, factor * values), Scale(own, 1 - factor)
        return lambda texts: [shrunk, PerRow(tuple((AddDirection(added[t]),) for t in texts))]

    def _added(self, own: tuple[int, ...], values: Array) -> Array:
        """What values write, [..., d_model].

        z + c (v - z) is no spec of latents alone; its constant part is added to the stream.
        """
        decoder = self.study.sae.W_dec[list(own)].detach().double().cpu().numpy()
        return np.asarray(values @ decoder)
