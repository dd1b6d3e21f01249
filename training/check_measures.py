"""What `check` measures: reconstruction, and the same under each way in which a fit can be lost.

Three classic faults load without an error and ruin every later result. Each is found by trying the
cure and seeing whether the reconstruction gets better:

1. the centring of the residual (SAEs of models with centred weights), on and off;
2. the scale of the input (a folded or forgotten normalisation), over a grid of factors;
3. the place (a layer too high or too low), over all blocks of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from torch import Tensor

from affectlens.data.addresses import Address
from affectlens.data.masking import MaskRule
from affectlens.data.models import LanguageModel
from affectlens.sae.metrics import QualityMeter, encoder_decoder_cosine, nearest_decoder_cosine
from affectlens.sae.model import SparseAutoencoder
from affectlens.training.evaluate import reconstruction
from affectlens.training.samples import Sample, content_rule, read_rows

_SCALE_POWERS = range(-10, 11)
_REFINEMENTS = 10
_TRIAL_FLOP = 4e11
_TRIAL_ROWS = (64, 256)
_PLACE_TOKENS = 512
_NEAREST_SAMPLE = 512


@dataclass(frozen=True)
class ScaleFit:
    """Reconstruction with the input multiplied by a factor (and the output divided by it)."""

    factor: float
    fvu: float
    l0: float
    fvu_as_is: float


@dataclass(frozen=True)
class CentringFit:
    """FVU with the mean over d_model removed from each row, and without."""

    centred: float
    uncentred: float


@dataclass(frozen=True)
class MaskFit:
    """The SAE's own mask beside the reference mask of a sample.

    Attributes:
        masked_share: share of tokens that the reference masks.
        masked_variance: share of the variance of all tokens that goes with them.
        fvu_with_masked: FVU over all tokens.
        added_variance: of the tokens the SAE's rule keeps, the share of variance that goes with
            those that the reference masks.
        lost_share: share of the reference's content tokens that the SAE's rule leaves out.
    """

    masked_share: float
    masked_variance: float
    fvu_with_masked: float
    added_variance: float
    lost_share: float


@dataclass(frozen=True)
class WeightGeometry:
    """The weights alone.

    Attributes:
        encoder_decoder: cosine of encoder column and decoder row, [d_sae]; None without W_enc.
        norms: L2 norms of decoder rows, [d_sae].
        nearest: largest cosine of sampled decoder rows with any other, [n_sampled].
    """

    encoder_decoder: Tensor | None
    norms: Tensor
    nearest: Tensor


def card_l0(sae: SparseAutoencoder) -> tuple[float | None, str]:
    """L0 as the SAE's card states it, and where: `k`, its metadata, or the sae-lens registry."""
    if "topk" in sae.info.architecture and sae.info.k is not None:
        return float(sae.info.k), "k"
    recorded = sae.sae.cfg.metadata.to_dict().get("l0")
    if isinstance(recorded, int | float) and recorded > 0:
        return float(recorded), "metadata"
    known = get_pretrained_saes_directory().get(sae.info.release or "")
    listed = known.expected_l0.get(sae.info.sae_id or "") if known is not None else None
    if listed:
        return float(listed), "sae-lens registry"
    return (float(sae.info.k), "k") if sae.info.k is not None else (None, "")


def scale_fit(sae: SparseAutoencoder, rows: Tensor, max_l0: float) -> ScaleFit:
    """The input factor with the lowest FVU among those whose L0 is at most `max_l0`.

    Powers of two, then a ternary search around the best. More latents always buy a lower FVU, so
    factors that only make the SAE less sparse do not count.
    """
    rows = _trial_rows(sae, rows)

    def trial(log2: float) -> ScaleFit:
        factor = 2.0**log2
        meter = QualityMeter(sae.d_sae)
        scaled = rows * factor
        z, x_hat = sae.encode_and_reconstruct(scaled)
        meter.add(rows, x_hat / factor, z)
        worth = meter.fvu if meter.l0 <= max_l0 else math.inf
        return ScaleFit(factor, worth, meter.l0, meter.fvu)

    as_is = trial(0.0)
    tried = {float(p): trial(float(p)) for p in _SCALE_POWERS}
    best = min(tried, key=lambda p: (tried[p].fvu, abs(p)))
    lowest, at = _ternary(trial, best - 1, best + 1), tried[best]
    found = lowest if lowest.fvu < at.fvu else at
    return ScaleFit(found.factor, found.fvu, found.l0, as_is.fvu_as_is)


def _ternary(trial: Callable[[float], ScaleFit], low: float, high: float) -> ScaleFit:
    for _ in range(_REFINEMENTS):
        third = (high - low) / 3
        left, right = trial(low + third), trial(high - third)
        if left.fvu <= right.fvu:
            high -= third
        else:
            low += third
    return min((left, right), key=lambda fit: fit.fvu)


def centring_fit(sae: SparseAutoencoder, rows: Tensor) -> CentringFit:
    """FVU on rows [n, d_in] with and without the removal of each row's mean."""
    values = {}
    for centre in (True, False):
        other = SparseAutoencoder(sae.sae, source=sae.info.source, centre=centre)
        values[centre] = reconstruction(other, rows).fvu
    return CentringFit(centred=values[True], uncentred=values[False])


def mask_fit(sae: SparseAutoencoder, sample: Sample) -> MaskFit:
    """How much hangs on the masked tokens, and whether the SAE's own rule is the sample's."""
    own = sample.kept_by(MaskRule(sae.info.skip_first, sae.info.norm_limit))
    everything = torch.ones_like(sample.keep)
    n_content = max(int(sample.keep.sum()), 1)
    return MaskFit(
        masked_share=float((~sample.keep).double().mean()),
        masked_variance=_variance_lost(sample.acts, everything, sample.keep),
        fvu_with_masked=reconstruction(sae, sample.acts).fvu,
        added_variance=_variance_lost(sample.acts, own, own & sample.keep),
        lost_share=int((sample.keep & ~own).sum()) / n_content,
    )


def _variance_lost(rows: Tensor, outer: Tensor, inner: Tensor) -> float:
    """Share of the summed squared distance from the mean that goes if only `inner` rows stay."""
    whole = _spread(rows[outer])
    return 1 - _spread(rows[inner]) / whole if whole > 0 else 0.0


def _spread(rows: Tensor) -> float:
    if not len(rows):
        return 0.0
    wide = rows.double()
    return float((wide - wide.mean(0)).square().sum())


def place_fit(sae: SparseAutoencoder, lm: LanguageModel, sample: Sample) -> dict[str, float]:
    """FVU at the output of every block, on a few hundred tokens of the sample's windows.

    Each place is measured against its own variance, first tokens and outliers left out.
    """
    text: list[tuple[int, ...]] = []
    for window in sample.windows:
        if sum(map(len, text)) < _PLACE_TOKENS:
            text.append(window)
    hooks = [Address(layer).name for layer in range(lm.n_layers)]
    own = Address.parse(sae.info.hook_name or sample.hook).as_output.name
    hooks += [own] if own not in hooks else []
    first = torch.cat([torch.arange(len(w)) == 0 for w in text])
    found: dict[str, float] = {}
    for hook, acts in read_rows(lm, hooks, text).items():
        keep = content_rule(acts, first)[1]
        found[hook] = reconstruction(sae, _trial_rows(sae, acts[keep])).fvu
    return found


def geometry(sae: SparseAutoencoder, seed: int = 0) -> WeightGeometry:
    """Angles and norms of the weights; decoder neighbours of a sample of rows drawn by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(sae.d_sae, generator=generator)[:_NEAREST_SAMPLE].to(sae.device)
    encoder = getattr(sae.sae, "W_enc", None)
    own = encoder_decoder_cosine(encoder, sae.W_dec).cpu() if encoder is not None else None
    return WeightGeometry(
        encoder_decoder=own,
        norms=sae.W_dec.norm(dim=-1).cpu(),
        nearest=nearest_decoder_cosine(sae.W_dec, chosen).cpu(),
    )


def _trial_rows(sae: SparseAutoencoder, rows: Tensor) -> Tensor:
    """As many rows as repeated trials can afford, spread over the sample."""
    low, high = _TRIAL_ROWS
    trials = len(_SCALE_POWERS) + 2 * _REFINEMENTS
    affordable = int(_TRIAL_FLOP / (trials * 6 * sae.d_in * sae.d_sae))
    n = min(max(low, min(high, affordable)), len(rows))
    return rows[torch.linspace(0, len(rows) - 1, n).long()].to(sae.device)
