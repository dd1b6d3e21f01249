"""Does an SAE fit a model and a place, is it any good, and is it better than nothing?

1. Fit: width, place, model, processing of the input (centring, scale, normalisation), masks.
2. Quality on held-out tokens, masked ones left out: reconstruction, sparsity against the card, loss
   recovered against two ablations, how often latents fire, angles of the weights.
3. On request, nulls (`nulls`): the same SAE trained where there is nothing to find.

The tokens come from a store, or without one from the embedded corpus, read through the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from affectlens.data.addresses import Address
from affectlens.data.artifacts import read_versioned, write_versioned
from affectlens.data.corpus import Corpus
from affectlens.data.errors import ArtifactError, HookError
from affectlens.data.models import LanguageModel
from affectlens.data.store import ActivationStore
from affectlens.sae.metrics import QualityMeter, loss_recovered
from affectlens.sae.model import SparseAutoencoder
from affectlens.training import check_lines as lines_of
from affectlens.training.check_latents import density_lines, geometry_lines
from affectlens.training.check_lines import CheckLine
from affectlens.training.check_measures import (
    card_l0,
    centring_fit,
    geometry,
    mask_fit,
    place_fit,
    scale_fit,
)
from affectlens.training.check_views import CheckViews
from affectlens.training.evaluate import (
    CE_TOKENS,
    HELDOUT_TOKENS,
    cross_entropy,
    reconstruction,
)
from affectlens.training.samples import Sample, sample_model, sample_store

if TYPE_CHECKING:
    from affectlens.training.nulls import NullResult

CHECK_VERSION = 1
Overall = Literal["fits", "usable with care", "misfit"]
STORE_TOKENS = HELDOUT_TOKENS
"""Held-out tokens of a store that are measured unless told otherwise, as after training."""
MODEL_TOKENS = CE_TOKENS
"""Tokens of the embedded corpus where there is no store: about half a minute on two cores."""


@dataclass(frozen=True, repr=False)
class SAECheck(CheckViews):
    """What a check found.

    Attributes:
        sae: the record of the SAE (`SAEInfo`).
        measured_on: where the tokens come from; empty if nothing was measured.
        n_tokens: content tokens measured.
        lines: everything that was looked at.
        nulls: SAEs trained where there is nothing to find, if asked for.
        model_fingerprint: hash of the model's weights; None if no model was at hand.
        verdict: 'misfit' if a line fails; 'usable with care' if one warns or the reconstruction
            was not measured; else 'fits'.
        summary: the verdict in a sentence or two.
    """

    sae: dict[str, Any]
    measured_on: str
    n_tokens: int
    lines: tuple[CheckLine, ...]
    nulls: tuple[NullResult, ...] = ()
    model_fingerprint: str | None = None
    verdict: Overall = field(init=False)
    summary: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdict", _overall(self.lines))
        object.__setattr__(self, "summary", _summary(self))

    def line(self, name: str) -> CheckLine:
        """The line of that name.

        Raises:
            ArtifactError: there is none.
        """
        for line in self.lines:
            if line.name == name:
                return line
        known = ", ".join(line.name for line in self.lines)
        raise ArtifactError(f"the check has no line {name!r}; it has {known}")

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; a value that is not finite becomes null."""
        return dict(_finite(asdict(self)))

    def write(self, path: str | Path) -> Path:
        """Write the check as versioned JSON."""
        return write_versioned(Path(path), CHECK_VERSION, self.as_dict())

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read what `write` wrote.

        Raises:
            ArtifactError: absent, not JSON, of another version, or with other fields.
        """
        from affectlens.training.nulls import NullResult

        payload = read_versioned(Path(path), CHECK_VERSION, cure="check again")
        for derived in ("verdict", "summary"):
            payload.pop(derived, None)
        try:
            payload["lines"] = tuple(CheckLine(**line) for line in payload["lines"])
            payload["nulls"] = tuple(NullResult(**null) for null in payload["nulls"])
            found = cls(**payload)
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{path} is not a check of an SAE ({error})") from error
        known = get_args(lines_of.Verdict)
        for line in found.lines:
            # A verdict that is not known would count neither as a failure nor as a warning.
            if line.verdict not in known:
                raise ArtifactError(
                    f"{path} is not a check of an SAE: line {line.name!r} has verdict "
                    f"{line.verdict!r}; known: {', '.join(known)}"
                )
        return found


def check_sae(
    sae: SparseAutoencoder,
    lm: LanguageModel | None = None,
    store: ActivationStore | None = None,
    *,
    corpus: Corpus | None = None,
    max_tokens: int | None = None,
) -> SAECheck:
    """Check an SAE against a model, a store, or both; nothing that does not fit raises.

    Args:
        sae: the SAE.
        lm: the model; without a store, held-out documents of a corpus are read through it.
        store: activations.
        corpus: text for a check without a store; by default the embedded one.
        max_tokens: tokens to measure; by default 20,000 of a store, 4,096 of the corpus.
    """
    used = _stored_hook(sae, store) if store is not None else None
    lines = _fit_lines(sae, lm, store, used)
    sample = None
    if not any(line.name == "shape" and line.verdict == "fail" for line in lines):
        sample = _sample(sae, lm, store, used, corpus, max_tokens)
    if sample is not None and (broken := lines_of.finite_line(sample.acts)) is not None:
        lines.append(broken)
        sample = None
    meter = reconstruction(sae, sample.content) if sample is not None else None
    if sample is not None and meter is not None:
        lines += _stream_lines(sae, lm, sample)
        lines += _quality_lines(sae, lm, sample, meter)
    lines += geometry_lines(geometry(sae))
    return SAECheck(
        sae=asdict(sae.info),
        measured_on=sample.origin if sample is not None else "",
        n_tokens=meter.n if meter is not None else 0,
        lines=tuple(lines),
        model_fingerprint=lm.fingerprint if lm is not None else None,
    )


def with_nulls(check: SAECheck, nulls: Sequence[NullResult]) -> SAECheck:
    """The same check with nulls beside it; one that is as good as the SAE is a warning."""
    return replace(
        check, lines=(*check.lines, *_null_lines(check, nulls)), nulls=(*check.nulls, *nulls)
    )


def _fit_lines(
    sae: SparseAutoencoder,
    lm: LanguageModel | None,
    store: ActivationStore | None,
    used: str | None,
) -> list[CheckLine]:
    width = lm.d_model if lm is not None else store.d_model if store is not None else None
    made = (store.provenance.get("model") or {}) if store is not None else {}
    prints = {
        "model": lm.fingerprint if lm is not None else None,
        "store": made.get("fingerprint"),
    }
    lines = [
        lines_of.files_line(sae),
        lines_of.width_line(sae, width),
        lines_of.hook_line(sae, lm.n_layers if lm is not None else made.get("n_layers")),
    ]
    if store is not None:
        if lm is not None and store.d_model != sae.d_in:
            lines.append(lines_of.width_line(sae, store.d_model))
        lines.append(lines_of.store_hook_line(sae, store.hook_names, used))
    return [
        *lines,
        lines_of.fingerprint_line(sae, prints),
        lines_of.name_line(sae, lm.name if lm is not None else made.get("name")),
        *lines_of.processing_lines(sae, lm.dtype if lm is not None else None),
    ]


def _stored_hook(sae: SparseAutoencoder, store: ActivationStore) -> str | None:
    """The hook of the store that is the SAE's place; its only one, if the SAE names none."""
    names = store.hook_names
    if not sae.info.hook_name:
        return names[0] if len(names) == 1 else None
    try:
        return Address.parse(sae.info.hook_name).among(names)
    except HookError:
        return None


def _sample(
    sae: SparseAutoencoder,
    lm: LanguageModel | None,
    store: ActivationStore | None,
    used: str | None,
    corpus: Corpus | None,
    max_tokens: int | None,
) -> Sample | None:
    if store is not None and used is not None:
        n = max_tokens or STORE_TOKENS
        return sample_store(store, used, n, min(n, MODEL_TOKENS))
    if lm is None or not sae.info.hook_name:
        return None
    try:
        Address.parse(sae.info.hook_name).check(lm.n_layers)
    except HookError:
        return None
    return sample_model(lm, sae.info.hook_name, max_tokens or MODEL_TOKENS, corpus=corpus)


def _stream_lines(
    sae: SparseAutoencoder, lm: LanguageModel | None, sample: Sample
) -> list[CheckLine]:
    """Whether the rows are what the SAE was trained on."""
    card, _ = card_l0(sae)
    limit = 1.5 * card if card is not None else sae.d_in / 2
    lines = [
        *lines_of.mask_lines(sae, sample.rule, mask_fit(sae, sample)),
        lines_of.centring_line(sae, centring_fit(sae, sample.content)),
        lines_of.scale_line(scale_fit(sae, sample.content, limit)),
    ]
    if lm is not None and lm.d_model == sae.d_in:
        lines.append(lines_of.place_line(sae, sample.hook, place_fit(sae, lm, sample)))
    return lines


def _quality_lines(
    sae: SparseAutoencoder, lm: LanguageModel | None, sample: Sample, meter: QualityMeter
) -> list[CheckLine]:
    lines = [
        *lines_of.reconstruction_lines(meter),
        lines_of.l0_line(meter.l0, *card_l0(sae)),
    ]
    if lm is not None and lm.d_model == sae.d_in:
        mean = sample.content.mean(0)
        ce = cross_entropy(sae, lm, sample.hook, sample.windows, mean, sample.rule)
        recovered = [
            loss_recovered(ce.clean, ce.spliced, ablated)
            for ablated in (ce.mean_ablated, ce.zero_ablated)
        ]
        lines += lines_of.loss_lines(ce, recovered[0], recovered[1])
    return [*lines, *density_lines(meter)]


def _null_lines(check: SAECheck, nulls: Sequence[NullResult]) -> list[CheckLine]:
    own = next((line.value for line in check.lines if line.name == "FVU"), None)
    fair = next((null.fvu for null in nulls if null.kind == "same budget"), own)
    found = []
    for null in nulls:
        if null.kind == "same budget" or not isinstance(fair, float):
            continue
        good = null.fvu <= lines_of.AS_GOOD * fair
        why = (
            "as good as the SAE: its reconstruction and sparsity do not show that it found "
            "anything the model has learned"
            if good
            else "worse than the SAE, at the same size, sparsity and number of samples"
        )
        expected = f"above {lines_of.AS_GOOD:g} x {fair:.3g}"
        name = f"null: {null.kind}"
        found.append(CheckLine(name, null.fvu, expected, "warn" if good else "ok", why))
    return found


def _overall(lines: Sequence[CheckLine]) -> Overall:
    verdicts = {line.verdict for line in lines}
    if "fail" in verdicts:
        return "misfit"
    measured = any(line.name == "FVU" for line in lines)
    return "fits" if measured and "warn" not in verdicts else "usable with care"


def _summary(check: SAECheck) -> str:
    by = {
        verdict: [line for line in check.lines if line.verdict == verdict]
        for verdict in ("fail", "warn", "unknown")
    }
    if by["fail"]:
        said = "; ".join(f"{line.name}: {line.why}" for line in by["fail"])
        return f"Misfit. {said}."
    if not check.measured_on:
        return (
            "The files are sound; nothing was measured. Give a model or a store to check the fit."
        )
    basis = f"measured on {check.n_tokens:,} content tokens ({check.measured_on})"
    head = "Fits" if not by["warn"] else "Usable with care"
    said = "; ".join(f"{line.name}: {line.why}" for line in by["warn"])
    open_ = ", ".join(line.name for line in by["unknown"])
    return (
        f"{head}, {basis}."
        + (f" {said}." if said else "")
        + (f" Not established: {open_}." if open_ else "")
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
