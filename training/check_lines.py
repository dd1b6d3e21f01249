"""The lines of a check: each a value, what was expected, a verdict, and why.

A `fail` says that the SAE does not belong to what it was measured on (or that it is no better than
no SAE at all); poor quality alone is a `warn`. What could not be measured is `unknown`, never `ok`.
The limits stand here as constants, each with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from affectlens.data.addresses import Address
from affectlens.data.errors import HookError
from affectlens.data.masking import MaskRule
from affectlens.sae.metrics import QualityMeter
from affectlens.sae.model import SparseAutoencoder
from affectlens.training.check_measures import CentringFit, MaskFit, ScaleFit
from affectlens.training.evaluate import CrossEntropy

Verdict = Literal["ok", "warn", "fail", "unknown"]
Value = float | int | str | None | dict[str, float]

FVU_WARN, FVU_FAIL = 0.5, 1.0
"""FVU 1 is what the mean row alone reaches, so above it the SAE explains nothing; above one half
more variance is lost than kept (published residual SAEs leave 0.01 to 0.35)."""
BETTER_WARN, BETTER_FAIL = 0.8, 0.5
"""A cure (centring, input scale, another layer) counts if it brings FVU below this share of what
it was. Sampling moves FVU by a few percent; a real mismatch by factors."""
POOR_FVU = 0.5
"""Below this FVU an input scale that does better is remarked on, not a misfit."""
POOR_PLACE_FVU = 0.3
"""Below this FVU another layer that does better is remarked on, not a misfit. A sound SAE does best
at its own layer, also where it is poor (default model, blocks 9, 15, 21, k 2 to 32: any other layer
has at least 1.1 times its FVU); trained at block 15 and read at block 9 it has 0.46 to 0.54."""
L0_OK, L0_WARN, L0_WARN_MEASURED = 0.05, 0.20, 0.50
"""Relative distance of L0 from the card: ok up to the first, a misfit above the second where the
card states k, above the third where it states an L0 that was measured on other text."""
COSINE_WARN = 0.7
"""Mean cosine of rows and reconstructions; at 0.7 a reconstruction points 45 degrees away."""
NORM_RANGE = (0.7, 1.1)
"""Relative norm of the reconstruction. L1 SAEs shrink by 10 to 20% (Wright and Sharkey 2024); what
is longer than the row itself comes from a wrong scale."""
CE_MIN_RISE = 0.05
"""Nats by which an ablation has to raise the loss; a share of less than that is mostly noise."""
CE_WARN, CE_FAIL = 0.8, 0.0
"""Share of the loss recovered. Published residual SAEs lie above 0.9 against zero ablation; 0 is no
better than the ablation itself."""
MASK_FAIL = 0.5
"""Share of variance (or of content tokens) in dispute between two mask rules."""
NORM_LIMIT_SAME = 0.1
"""Relative distance of two norm limits that counts as equal."""
AS_GOOD = 1.05
"""A null is as good where its FVU is at most this multiple of the SAE's."""


@dataclass(frozen=True)
class CheckLine:
    """One thing that was looked at."""

    name: str
    value: Value
    expected: str
    verdict: Verdict
    why: str


def width_line(sae: SparseAutoencoder, d_model: int | None) -> CheckLine:
    """Width of the SAE against the model's (or the store's)."""
    found = f"d_in {sae.d_in}, d_sae {sae.d_sae}"
    if d_model is None:
        return CheckLine("shape", found, "d_in = d_model", "unknown", "no model and no store given")
    if d_model != sae.d_in:
        why = f"the residual has {d_model} entries; the SAE was made for another model"
        return CheckLine("shape", found, f"d_in {d_model}", "fail", why)
    return CheckLine("shape", found, f"d_in {d_model}", "ok", "the widths agree")


def files_line(sae: SparseAutoencoder) -> CheckLine:
    """Whether the files are those that were written, and what the loader had to leave open."""
    notes = "; ".join(sae.info.notes)
    value, expected = sae.info.sha256[:12], "a recorded hash"
    if sae.info.verified:
        return CheckLine("files", value, expected, "ok", notes or "as they were written")
    why = "no hash was recorded with the files, so a change would not be seen"
    return CheckLine("files", value, expected, "unknown", f"{why}; {notes}" if notes else why)


def hook_line(sae: SparseAutoencoder, n_layers: int | None) -> CheckLine:
    """Whether the SAE says where it belongs, and the model has that place."""
    name = sae.info.hook_name
    expected = "a block of the model"
    if not name:
        why = (
            "the file does not say; convert files of other projects with --hook, give train_on "
            "metadata={'hook_name': ...}, or write metadata.hook_name into cfg.json"
        )
        return CheckLine("hook", None, expected, "fail", why)
    try:
        address = Address.parse(name)
        if n_layers is not None:
            address.check(n_layers)
    except HookError as error:
        return CheckLine("hook", name, expected, "fail", str(error))
    if n_layers is None:
        return CheckLine("hook", name, expected, "unknown", "no model given")
    return CheckLine("hook", name, f"blocks 0 to {n_layers - 1}", "ok", "the model has it")


def store_hook_line(sae: SparseAutoencoder, stored: list[str], used: str | None) -> CheckLine:
    """Whether the store holds the SAE's place, by either of its names."""
    expected = sae.info.hook_name or "one place"
    value = ", ".join(stored)
    if used is None:
        why = "the store holds other places; harvest that one"
        return CheckLine("store hook", value, expected, "fail", why)
    why = "the store holds it"
    if used != sae.info.hook_name:
        why = f"{used} is the same place" if sae.info.hook_name else f"{used} is measured"
    return CheckLine("store hook", used, expected, "ok", why)


def fingerprint_line(sae: SparseAutoencoder, found: Mapping[str, str | None]) -> CheckLine:
    """The model the SAE was trained on against those at hand, by hash.

    Args:
        sae: the SAE.
        found: fingerprint of each model at hand, by what holds it ("model", "store").
    """
    known = sae.info.model_fingerprint
    there = {where: value for where, value in found.items() if value}
    shown = {where: value[:12] for where, value in there.items()}
    value = ", ".join(f"{where} {short}" for where, short in shown.items()) or None
    if len(set(there.values())) > 1:
        why = "the store was made by another model than the one given"
        return CheckLine("fingerprint", value, "one model", "fail", why)
    if known is None:
        why = "the SAE does not record which weights it was trained on"
        return CheckLine("fingerprint", value, "not recorded", "unknown", why)
    if not there:
        return CheckLine("fingerprint", None, known[:12], "unknown", "nothing to compare with")
    other = [where for where, value in there.items() if value != known]
    if other:
        why = f"the {' and the '.join(other)} has other weights than the SAE was trained on"
        return CheckLine("fingerprint", value, known[:12], "fail", why)
    return CheckLine("fingerprint", value, known[:12], "ok", "the same weights")


def name_line(sae: SparseAutoencoder, name: str | None) -> CheckLine:
    """The recorded name of the model; names prove nothing, so this is never more than a hint."""
    recorded = sae.info.model_name or "not recorded"
    if name is None or not sae.info.model_name:
        return CheckLine("model name", name, recorded, "unknown", "nothing to compare")
    same = _plain_name(name) == _plain_name(recorded)
    why = "the same name" if same else "another spelling or another model; names do not tell"
    return CheckLine("model name", name, recorded, "ok" if same else "unknown", why)


def _plain_name(name: str) -> str:
    return name.rsplit("/", 1)[-1].lower().replace("_", "-")


def processing_lines(sae: SparseAutoencoder, dtype: torch.dtype | None) -> list[CheckLine]:
    """What happens to a row before it is encoded, and the number formats."""
    norm = str(sae.sae.cfg.normalize_activations)
    if sae.normalises_at_run_time:
        why = "each row is normalised, so the size of a latent's write depends on the token"
        first = CheckLine("normalisation", norm, "none", "warn", why)
    elif norm not in ("none", "None"):
        why = "a constant factor that should be folded into the weights; see 'input scale'"
        first = CheckLine("normalisation", norm, "none", "warn", why)
    else:
        first = CheckLine("normalisation", norm, "none", "ok", "rows go in as they are")
    if dtype is None:
        return [first, CheckLine("dtype", None, "float32", "unknown", "no model given")]
    half = dtype == torch.float16
    why = "outlier tokens can overflow; use bfloat16" if half else "the SAE itself runs in float32"
    shown = str(dtype).removeprefix("torch.")
    verdict: Verdict = "warn" if half else "ok"
    return [first, CheckLine("dtype", shown, "float32 or bfloat16", verdict, why)]


def finite_line(acts: torch.Tensor) -> CheckLine | None:
    """Rows [n, d_in] with NaN or infinite entries, on which nothing can be measured; None without.

    Finite rows whose squares overflow count as well.
    """
    good = torch.isfinite(acts.square().sum(-1))
    n_bad = int((~good).sum())
    if n_bad == 0:
        return None
    first = int((~good).nonzero()[0])
    why = (
        f"{n_bad} of {len(acts)} rows hold NaN, infinite or overflowing values, the first is row "
        f"{first}; harvest again, in float32 or bfloat16"
    )
    return CheckLine("activations", n_bad, "finite rows", "fail", why)


def centring_line(sae: SparseAutoencoder, fit: CentringFit) -> CheckLine:
    """Whether the recorded centring is the one that fits the stream."""
    own, other = fit.uncentred, fit.centred
    state, cure = "off", "centre=True"
    if sae.info.centre:
        own, other, state, cure = fit.centred, fit.uncentred, "on", "centre=False"
    value = {"FVU centred": fit.centred, "FVU uncentred": fit.uncentred}
    if other > BETTER_WARN * own:
        return CheckLine("centring", value, f"{state}, as recorded", "ok", f"{state} fits")
    why = f"recorded as {state}, but the other way fits better; load it with {cure}"
    verdict: Verdict = "fail" if other <= BETTER_FAIL * own else "warn"
    return CheckLine("centring", value, f"{state}, as recorded", verdict, why)


def scale_line(fit: ScaleFit) -> CheckLine:
    """Whether another scale of the input would be reconstructed better."""
    value = {"best factor": fit.factor, "FVU there": fit.fvu, "L0 there": fit.l0}
    value["FVU as is"] = fit.fvu_as_is
    expected = "factor 1"
    if not fit.fvu <= BETTER_WARN * fit.fvu_as_is:
        return CheckLine("input scale", value, expected, "ok", "no other scale does clearly better")
    why = f"rows times {fit.factor:.3g} fit better: "
    if fit.fvu <= BETTER_FAIL * fit.fvu_as_is and fit.fvu_as_is >= POOR_FVU:
        why += "a normalisation was lost; fold the factor into the weights"
        return CheckLine("input scale", value, expected, "fail", why)
    return CheckLine("input scale", value, expected, "warn", why + "the scale may be off")


def place_line(sae: SparseAutoencoder, hook: str, found: Mapping[str, float]) -> CheckLine:
    """Whether another layer would be reconstructed better."""
    own = Address.parse(sae.info.hook_name or hook).as_output.name
    others = [name for name in found if name != own]
    if not others:
        why = "the model has no other"
        return CheckLine("layer", {f"FVU at {own}": found[own]}, own, "unknown", why)
    best = min(others, key=lambda name: found[name])
    value = {f"FVU at {own}": found[own], f"FVU at {best}": found[best]}
    if found[best] > BETTER_WARN * found[own]:
        return CheckLine("layer", value, own, "ok", "no other layer does clearly better")
    why = f"{best} is reconstructed better than the recorded place"
    wrong = found[best] <= BETTER_FAIL * found[own] and found[own] >= POOR_PLACE_FVU
    return CheckLine("layer", value, own, "fail" if wrong else "warn", why)


def mask_lines(sae: SparseAutoencoder, rule: MaskRule, fit: MaskFit) -> list[CheckLine]:
    """Masked tokens: what hangs on them, and whether SAE and text agree which they are."""
    value: Value = {
        "share of tokens": fit.masked_share,
        "share of variance": fit.masked_variance,
        "FVU with them": fit.fvu_with_masked,
    }
    why = "they are left out of every other line; this is what they would have done to it"
    return [
        CheckLine("masked tokens", value, "for information", "ok", why),
        _mask_rule_line(sae, rule, fit),
    ]


def _mask_rule_line(sae: SparseAutoencoder, rule: MaskRule, fit: MaskFit) -> CheckLine:
    info = sae.info
    own = _said_rule(info.skip_first, info.norm_limit)
    expected = _said_rule(rule.skip_first, rule.norm_limit)
    recorded = "skip_first" in sae.sae.cfg.metadata.to_dict()
    if recorded and info.skip_first == rule.skip_first and _same(info.norm_limit, rule.norm_limit):
        return CheckLine("mask rule", own, expected, "ok", "the same rule")
    tokens, variance = fit.lost_share, fit.added_variance
    disputed = f"its rule lets in {variance:.1%} of the variance and loses {tokens:.1%} of tokens"
    if max(tokens, variance) > MASK_FAIL:
        verdict: Verdict = "fail" if recorded else "warn"
        return CheckLine("mask rule", own, expected, verdict, f"another rule: {disputed}")
    if not recorded:
        why = f"the SAE records none, so the default holds; {disputed}"
        return CheckLine("mask rule", own, expected, "unknown", why)
    return CheckLine("mask rule", own, expected, "warn", f"another rule: {disputed}")


def _said_rule(skip_first: bool, limit: float | None) -> str:  # noqa: FBT001
    first = "without first tokens" if skip_first else "with first tokens"
    return f"{first}, " + ("no norm limit" if limit is None else f"norms to {limit:.4g}")


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= NORM_LIMIT_SAME * max(a, b)


def reconstruction_lines(meter: QualityMeter) -> list[CheckLine]:
    """FVU, cosine and norm of the reconstruction of content tokens."""
    return [
        _fvu_line(meter.fvu),
        _low_line(
            "cosine", meter.cosine, COSINE_WARN, "mean cosine; a shared mean direction raises it"
        ),
        _norm_line(meter.relative_norm),
    ]


def _fvu_line(value: float) -> CheckLine:
    expected = f"below {FVU_WARN:g}"
    if not value < FVU_FAIL:
        return CheckLine("FVU", value, expected, "fail", "no better than the mean row")
    if value >= FVU_WARN:
        return CheckLine("FVU", value, expected, "warn", "more variance is lost than kept")
    return CheckLine("FVU", value, expected, "ok", f"{value:.1%} of the variance is unexplained")


def _norm_line(value: float) -> CheckLine:
    low, high = NORM_RANGE
    inside = low <= value <= high
    why = "of the row's norm" if inside else "reconstructions are shrunk or blown up"
    expected = f"{low:g} to {high:g}"
    return CheckLine("relative norm", value, expected, "ok" if inside else "warn", why)


def _low_line(name: str, value: float, limit: float, why: str) -> CheckLine:
    return CheckLine(name, value, f"at least {limit:g}", "ok" if value >= limit else "warn", why)


def l0_line(value: float, card: float | None, where: str) -> CheckLine:
    """L0 against what the SAE's card says.

    A fixed k holds on any text; a number that was measured holds on its own text only.
    """
    if value == 0:
        expected = "above 0" if card is None else f"{card:g} ({where})"
        return CheckLine("L0", value, expected, "fail", "no latent fires on any token")
    if card is None:
        return CheckLine("L0", value, "not recorded", "unknown", "no card to compare with")
    off = abs(value - card) / card
    limit = L0_WARN if where == "k" else L0_WARN_MEASURED
    verdict: Verdict = "ok" if off <= L0_OK else "warn" if off <= limit else "fail"
    return CheckLine("L0", value, f"{card:g} ({where})", verdict, f"{off:.1%} off the card")


def loss_lines(ce: CrossEntropy, mean: float, zero: float) -> list[CheckLine]:
    """Cross-entropy recovered against both ablations."""
    about = f"loss {ce.clean:.3f} clean, {ce.spliced:.3f} through the SAE"
    arms = {"mean": (mean, ce.mean_ablated), "zero": (zero, ce.zero_ablated)}
    return [
        _loss_line(arm, value, at - ce.clean, f"{about}, {at:.3f}")
        for arm, (value, at) in arms.items()
    ]


def _loss_line(arm: str, value: float, rise: float, about: str) -> CheckLine:
    name, expected = f"loss recovered ({arm})", f"at least {CE_WARN:g}"
    about = f"{about} {arm}-ablated"
    if math.isnan(value):
        why = f"ablation does not raise the loss, so no share exists; {about}"
        return CheckLine(name, None, expected, "unknown", why)
    if rise < CE_MIN_RISE:
        why = f"ablation raises the loss by less than {CE_MIN_RISE:g}, so a share is noise; {about}"
        return CheckLine(name, value, expected, "unknown", why)
    if value <= CE_FAIL:
        return CheckLine(name, value, expected, "fail", f"no better than the ablation; {about}")
    return CheckLine(name, value, expected, "ok" if value >= CE_WARN else "warn", about)
