"""One direction to add to one residual stream: what it is, how it was made, how long it is.

A vector is made of decoder rows (`vector_of_features`) or of the residuals of a battery's
discovery pairs (`vector_of_pairs`: difference of means or a probe, the baselines of AxBench, Wu et
al. 2025, arXiv:2501.17148). Its unit is that of the residual stream itself, so what is added at
strength s is `s * vector`, the same at every token. `vector_files` writes and reads it.

How long a vector is decides what strength 1 means:

- "residual": as long as the residual is on average, over unmasked held-out tokens at that place.
  Strength 0.1 then writes a tenth of the stream's norm, the doses of a steering study.
- "unit": L2 norm 1.
- "sum": the weighted sum of decoder rows as it is; weights are latent activations.
- a number: that L2 norm.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from affectlens.data.addresses import Address
from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery
from affectlens.data.store import ActivationStore
from affectlens.features.controls import (
    PairMeans,
    difference_of_means,
    pair_means,
    probe_direction,
    unit,
)
from affectlens.features.selection import FeatureSet
from affectlens.features.specs import AddDirection, Vector, numbers, one_each
from affectlens.sae.model import SparseAutoencoder

if TYPE_CHECKING:
    from affectlens.features.search import SearchResult

MadeBy = Literal["features", "diff_of_means", "probe", "other"]
PairMethod = Literal["diff_of_means", "probe"]
Length = Literal["residual", "unit", "sum"] | float
NORM_ROWS = 4096
"""Held-out tokens that the mean norm of the residual is taken over."""

_DIRECTION: dict[str, Callable[[PairMeans, str], npt.NDArray[np.float64]]] = {
    "diff_of_means": difference_of_means,
    "probe": probe_direction,
}


@dataclass(frozen=True)
class VectorOrigin:
    """How a vector was made and what it belongs to; '' or None where that is not known.

    Attributes:
        made_by: from decoder rows, as a difference of means, as a probe, or elsewhere.
        emotion: the contrast it stands for.
        features: latents whose decoder rows were summed.
        weights: factor of each row.
        chosen_by: how the latents were chosen, or the pairs.
        length: what its length was set to, in words.
        model_name: the language model.
        model_type: its architecture as transformers calls it, such as "llama".
        model_fingerprint: hash of the model's weights.
        sae_sha256: hash of the SAE's weights.
        battery_sha256: hash of the battery that chose or made it.
        licence: under which the vector is given away.
    """

    made_by: MadeBy = "other"
    emotion: str = ""
    features: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    chosen_by: str = ""
    length: str = ""
    model_name: str = ""
    model_type: str = ""
    model_fingerprint: str | None = None
    sae_sha256: str = ""
    battery_sha256: str = ""
    licence: str = ""


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """A vector and the place it is added to.

    Attributes:
        vector: float32 [d_model], in the units of the residual stream; a copy, read-only.
        hook_name: the place, such as "blocks.15.hook_resid_post".
        name: for people.
        origin: how it was made.
        residual_norm: mean L2 norm of the residual there; None where it was not measured.

    Raises:
        ConfigError: not one row of finite numbers, all zero, or a `residual_norm` that is no
            positive number.
        HookError: not a place on the residual stream.
    """

    vector: Vector
    hook_name: str
    name: str
    origin: VectorOrigin = field(default_factory=VectorOrigin)
    residual_norm: float | None = None

    def __post_init__(self) -> None:
        found = numbers(self.vector, f"steering vector {self.name!r}", ndim=1).copy()
        if not found.any():
            raise ConfigError(f"steering vector {self.name!r} is zero, so it names no direction")
        found.setflags(write=False)
        object.__setattr__(self, "vector", found)
        object.__setattr__(self, "hook_name", Address.parse(self.hook_name).name)
        if self.residual_norm is not None:
            _positive(self.residual_norm, "residual_norm")

    def __repr__(self) -> str:
        return (
            f"SteeringVector({self.name!r}, {self.hook_name}, d_model={len(self.values)}, "
            f"norm={self.norm:.4g})"
        )

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """The vector, float32 [d_model]."""
        return np.asarray(self.vector, dtype=np.float32)

    @property
    def norm(self) -> float:
        """Its L2 norm, in the units of the residual stream."""
        return float(np.linalg.norm(self.values.astype(np.float64)))

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the vector's little-endian float32 bytes."""
        return hashlib.sha256(self.values.astype("<f4").tobytes()).hexdigest()

    def spec(self, strength: float = 1.0) -> AddDirection:
        """The edit that adds `strength * vector`, for `al.applied`.

        With `scope="all"` it writes to every token, as llama.cpp does; the default scope leaves
        out what the mask rule leaves out, above all the first token.
        """
        return AddDirection(self.values, strength)


def vector_of_features(
    chosen: FeatureSet | Sequence[int],
    sae: SparseAutoencoder,
    store: ActivationStore | None = None,
    *,
    weights: Sequence[float] | None = None,
    length: Length = "residual",
    model_type: str = "",
    licence: str = "",
) -> SteeringVector:
    """The direction of some latents: a weighted sum of their decoder rows.

    Args:
        chosen: latents, as `found.top("grief", 5)` gives them.
        sae: whose latents these are.
        store: activations at the SAE's place; needed for `length="residual"`.
        weights: latent activations, one for each; rows then count by them. None gives every row
            the same length first, so that every latent has the same say.
        length: see the module; "sum" takes `weights`.
        model_type: architecture of the model, such as "llama"; recorded.
        licence: recorded.

    Raises:
        ConfigError: no latents, or one outside the SAE or named twice; latents chosen with another
            SAE; weights of another number; rows that cancel; a length that cannot be had; an SAE
            without a hook name.
    """
    features = _checked_features(chosen, sae)
    rows = sae.W_dec[list(features)].detach().double().cpu().numpy()
    if weights is None:
        factors = 1 / np.maximum(np.linalg.norm(rows, axis=1), np.finfo(float).tiny)
    else:
        factors = one_each(weights, "weights", len(features)).astype(np.float64)
    summed = factors @ rows
    if np.linalg.norm(summed) <= 1e-9 * np.linalg.norm(factors[:, None] * rows):
        raise ConfigError(
            f"the decoder rows of the latents {list(features)} cancel, so they name no direction; "
            "choose other latents or weights"
        )
    if length == "sum" and sae.normalises_at_run_time:
        raise ConfigError(
            f"this SAE normalises its input ({sae.sae.cfg.normalize_activations}), so what a "
            "latent writes depends on the token and no sum stands for it; give length 'unit', "
            "'residual' or a number"
        )
    if length == "sum" and weights is None:
        raise ConfigError("length 'sum' needs weights: activations, one for each latent")
    picked = chosen if isinstance(chosen, FeatureSet) else None
    residual = None if store is None else residual_norm(store, sae.info.hook_name)
    vector, said = _scaled(summed, length, residual)
    info = sae.info
    origin = VectorOrigin(
        made_by="features",
        emotion="" if picked is None else picked.emotion,
        features=features,
        weights=tuple(float(f) for f in factors),
        chosen_by="given by hand" if picked is None else picked.chosen_by,
        length=said,
        model_name=info.model_name,
        model_type=model_type,
        model_fingerprint=info.model_fingerprint,
        sae_sha256=info.sha256,
        licence=licence,
    )
    name = origin.emotion or "latents " + ", ".join(map(str, features))
    return SteeringVector(vector, info.hook_name, name, origin, residual)


def vector_of_pairs(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    emotion: str,
    store: ActivationStore | None = None,
    *,
    method: PairMethod = "diff_of_means",
    length: Length = "residual",
    licence: str = "",
) -> SteeringVector:
    """A direction from the residuals of an emotion's discovery pairs; no latent enters.

    Residuals are means over a text's unmasked tokens at the SAE's place. Pairs of the confirmation
    part stay unseen, so effects measured there are honest.

    Args:
        lm: the model.
        sae: names the place and the mask.
        battery: the battery that was searched.
        found: the search; its split says which pairs may be used.
        emotion: "all" or one of the battery's.
        store: activations at the place; needed for `length="residual"`.
        method: difference of means, or the weights of a logistic probe (`controls`).
        length: see the module, without "sum".
        licence: recorded.

    Raises:
        ConfigError: an unknown method or emotion, no discovery pair of it, or a length that cannot
            be had.
    """
    if method not in get_args(PairMethod):
        raise ConfigError(f"method {method!r} is unknown; there are diff_of_means and probe")
    pairs = [p for p in battery.pairs if found.parts.get(p.cluster) == "discovery"]
    means = pair_means(lm, sae, battery, pairs) if pairs else None
    if means is None or not means.own(emotion).any():
        raise ConfigError(
            f"{emotion!r} has no discovery pair in this battery; it has "
            f"{', '.join(battery.emotions)} (give the battery that was searched)"
        )
    direction = _DIRECTION[method](means, emotion)
    residual = None if store is None else residual_norm(store, sae.info.hook_name)
    vector, said = _scaled(direction, length, residual)
    origin = VectorOrigin(
        made_by=method,
        emotion=emotion,
        chosen_by=f"{int(means.own(emotion).sum())} discovery pairs of {battery.name}",
        length=said,
        model_name=lm.name,
        model_type=str(getattr(lm.model.config, "model_type", "")),
        model_fingerprint=lm.fingerprint,
        sae_sha256=sae.info.sha256,
        battery_sha256=battery.sha256,
        licence=licence,
    )
    return SteeringVector(vector, sae.info.hook_name, emotion, origin, residual)


def residual_norm(store: ActivationStore, hook_name: str) -> float:
    """Mean L2 norm of the residual over at most `NORM_ROWS` unmasked held-out tokens.

    Raises:
        ConfigError: the store does not hold the place.
        ArtifactError: nothing is held out.
    """
    stored = Address.parse(hook_name).among(store.hook_names)
    if stored is None:
        raise ConfigError(
            f"the store holds {', '.join(store.hook_names)}, not {hook_name}; harvest that place, "
            "or give another length than 'residual'"
        )
    acts = store.heldout(stored, NORM_ROWS).acts
    return float(acts.double().norm(dim=-1).mean())


def _checked_features(chosen: Sequence[int], sae: SparseAutoencoder) -> tuple[int, ...]:
    features = tuple(int(f) for f in chosen)
    if not features:
        raise ConfigError("no latent was given; a vector needs at least one")
    wrong = [f for f in features if not 0 <= f < sae.d_sae]
    if wrong:
        raise ConfigError(f"no latent {wrong[0]}: the SAE has latents 0 to {sae.d_sae - 1}")
    if len(set(features)) != len(features):
        raise ConfigError(f"latents {list(features)} name one twice; name each once")
    made = chosen.sae_sha256 if isinstance(chosen, FeatureSet) else ""
    if made and made != sae.info.sha256:
        raise ConfigError(
            f"these latents were chosen with another SAE ({made[:12]}, this is "
            f"{sae.info.sha256[:12]}); give the SAE that was searched"
        )
    if not sae.info.hook_name:
        raise ConfigError(
            "this SAE does not say where it reads; put hook_name into metadata of its cfg.json"
        )
    return features


def _scaled(
    direction: npt.NDArray[np.float64], length: Length, residual: float | None
) -> tuple[npt.NDArray[np.float64], str]:
    """The direction at the asked length, and that length in words."""
    if length == "sum":
        return direction, "sum of rows times activations"
    if length == "unit":
        return unit(direction), "norm 1"
    if length == "residual":
        if residual is None:
            raise ConfigError(
                "length 'residual' is the mean norm of the stream, which is measured on a store of "
                "activations: give one, or length 'unit' or a number"
            )
        return residual * unit(direction), "mean norm of the residual on held-out text"
    if isinstance(length, str):
        raise ConfigError(f"length {length!r} is unknown; allowed: residual, unit, sum, a number")
    return _positive(length, "length") * unit(direction), f"norm {length:g}"


def _positive(value: float, what: str) -> float:
    if isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"{what} is {value!r}; it must be a positive finite number")
    return float(value)
