"""One object around every SAE that sae-lens can hold.

It adds what the sae-lens classes leave to the caller: a record with typed fields (their metadata
answers `None` to a misspelt key), the masks the SAE was trained with, the centring that some
releases need, and a hash of the weights.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sae_lens
import torch
from torch import Tensor

from affectlens.sae.errors import SAEError
from affectlens.sae.views import SAEViews

RESIDUAL = re.compile(
    r"blocks\.\d{1,6}\.hook_(resid_pre|resid_post|in|out)|(\w+\.)*(layers|h)\.\d{1,6}"
)
"""Names of places on the residual stream before or after a block."""

RUN_TIME_NORMS = ("layer_norm", "constant_norm_rescale")
"""Input normalisations that make the decoder depend on the token."""

FOLDED_NORMS = ("expected_average_only_in", "covariance_whitening")
"""Input normalisations whose constants belong into the weights when training ends."""

_READ_AND_WRITE_ELSEWHERE = ("transcoder", "temporal")
_OTHER_PLACES = re.compile(
    r"hook_(?!resid_pre|resid_post|in$|out$|point)\w+"
    r"|\.(attn|self_attn|attention|mlp)(\.|$)"
    r"|(^|\.)(\w*embed\w*|wte|wpe|(\w+_)?norm|\w*layernorm|\w*layer_norm|ln_?\w+|lm_head)(\.|$)"
)


@dataclass(frozen=True)
class SAEInfo:
    """What an SAE is and where it belongs."""

    architecture: str
    d_in: int
    d_sae: int
    k: int | None
    """Latents per token where the architecture fixes or was trained for a number."""
    hook_name: str
    """For example `blocks.15.hook_resid_post`; empty if the file does not say."""
    model_name: str
    model_fingerprint: str | None
    """Hash of the language model it was trained on; `None` for SAEs made elsewhere."""
    skip_first: bool
    """Whether the first token of a text lies outside the training distribution."""
    norm_limit: float | None
    """Largest L2 norm of a residual that counts as content; `None` for no limit."""
    centre: bool
    """Whether the residual's mean over d_model is removed before encoding."""
    source: str
    sha256: str
    """Hash of architecture and weights, the same in memory and after saving and loading."""
    release: str | None = None
    """Release in the sae-lens registry, or hub repository, that it was read from."""
    sae_id: str | None = None
    """Its name within the release."""
    repo_id: str | None = None
    """Hub repository of the files."""
    revision: str | None = None
    """Commit of that repository that the files were read from."""
    # How it was read does not make it another SAE, so these two are left out of comparisons.
    verified: bool = field(default=False, compare=False)
    """Whether the files matched a hash recorded with them; False also where none was recorded."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What the loader left aside or could not settle."""


@dataclass(frozen=True)
class FitRecord:
    """What a check of an SAE on a model found.

    `failed` maps the name of each misfit to why it is one; empty where the SAE fits.
    """

    model_fingerprint: str
    measured_on: str
    failed: Mapping[str, str]


class SparseAutoencoder(SAEViews):
    """A sae-lens SAE in float32 evaluation mode.

    Args:
        sae: any sae-lens inference SAE that reads and writes one residual stream.
        source: where it came from, for the record.
        centre: overrides the metadata; needed for folders that lost the release's settings.
        verified: whether the files matched a recorded hash.
        notes: for the record.

    Attributes:
        fit: what the last check on a model found; None before one.

    Raises:
        SAEError: transcoders, temporal SAEs, and SAEs of attention, MLP or other places beside
            the residual stream between blocks.
    """

    def __init__(
        self,
        sae: sae_lens.SAE[Any],
        *,
        source: str = "memory",
        centre: bool | None = None,
        verified: bool = False,
        notes: Sequence[str] = (),
    ) -> None:
        _check_supported(sae)
        sae = sae.to(dtype=torch.float32)
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            # The decoder then has unit rows, so that a latent's direction is its decoder row.
            sae.fold_W_dec_norm()
            sae.cfg.rescale_acts_by_decoder_norm = False
        self.sae = sae.eval().requires_grad_(requires_grad=False)
        self.info = _info(self.sae, source, centre=centre, verified=verified, notes=notes)
        self.fit: FitRecord | None = None

    def __repr__(self) -> str:
        i = self.info
        return (
            f"SparseAutoencoder({i.architecture}, d_in={i.d_in}, d_sae={i.d_sae}, k={i.k}, "
            f"{i.hook_name or 'no hook name'})"
        )

    @property
    def d_in(self) -> int:
        """Width of the residual stream."""
        return self.info.d_in

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.info.d_sae

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 over architecture and weights."""
        return self.info.sha256

    @property
    def W_dec(self) -> Tensor:  # noqa: N802 - the field's name
        """Decoder rows [d_sae, d_in]: what one unit of a latent adds to the residual."""
        return self.sae.W_dec

    @property
    def b_dec(self) -> Tensor:
        """Decoder bias [d_in]."""
        return self.sae.b_dec

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.sae.W_dec.device

    @property
    def normalises_at_run_time(self) -> bool:
        """Whether the size of a latent's write depends on the token it is read from."""
        return self.sae.cfg.normalize_activations in RUN_TIME_NORMS

    def to(self, device: str | torch.device) -> SparseAutoencoder:
        """Move the weights in place; returns itself."""
        self.sae.to(device=torch.device(device))
        return self

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latent activations [..., d_sae] (float32) of residuals [..., d_in].

        Raises:
            SAEError: the last dimension is not d_in.
        """
        return self.sae.encode(self._prepare(x))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Reconstruction [..., d_in] of latents [..., d_sae], in the space that `encode` reads.

        Raises:
            SAEError: wrong width, or an SAE that needs the input again (use `reconstruct`).
        """
        if z.shape[-1] != self.d_sae:
            raise SAEError(f"got latents of width {z.shape[-1]}, this SAE has d_sae={self.d_sae}")
        if self.normalises_at_run_time:
            raise SAEError(
                f"this SAE normalises its input ({self.sae.cfg.normalize_activations}), so latents "
                "alone do not fix the output; use reconstruct(x)"
            )
        return self.sae.decode(z.to(torch.float32))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """`x` [..., d_in] through the SAE and back, in the space of `x` (float32)."""
        return self.encode_and_reconstruct(x)[1]

    @torch.no_grad()
    def encode_and_reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [..., d_sae] of `x` [..., d_in] and its reconstruction, encoded once."""
        z = self.encode(x)
        out = self.sae.decode(z)
        if self.info.centre:
            out = out + x.to(torch.float32).mean(-1, keepdim=True)
        return z, out

    @torch.no_grad()
    def output_scale(self, x: Tensor) -> Tensor:
        """Factor [..., 1] between a decoder row and what it writes at the token `x` [..., d_in].

        One everywhere except for SAEs that normalise their input at run time.
        """
        prepared = self._prepare(x)
        norm = self.sae.cfg.normalize_activations
        if norm == "layer_norm":
            return (prepared - prepared.mean(-1, keepdim=True)).std(-1, keepdim=True)
        if norm == "constant_norm_rescale":
            return prepared.norm(dim=-1, keepdim=True) / math.sqrt(self.d_in)
        return torch.ones_like(prepared[..., :1])

    def _prepare(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.d_in:
            raise SAEError(
                f"got a residual of width {x.shape[-1]}, this SAE reads d_in={self.d_in}; "
                "it belongs to another model or layer"
            )
        x = x.to(torch.float32)
        return x - x.mean(-1, keepdim=True) if self.info.centre else x


def weights_sha256(sae: sae_lens.SAE[Any]) -> str:
    """Hex SHA-256 over architecture, k and every tensor (name, shape, float32 bytes)."""
    digest = hashlib.sha256(f"{sae.cfg.architecture()};k={getattr(sae.cfg, 'k', None)}".encode())
    for name, tensor in sorted(sae.state_dict().items()):
        array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(f";{name}{tuple(array.shape)}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def check_architecture(name: str) -> None:
    """Refuse what does not read and write one residual stream per token.

    Raises:
        SAEError: transcoders and temporal SAEs.
    """
    if any(word in name for word in _READ_AND_WRITE_ELSEWHERE):
        raise SAEError(
            f"architecture {name!r} does not read and write one residual stream per token; "
            "supported: standard, gated, topk, abstopk, jumprelu, matching_pursuit"
        )


def check_place(hook_name: str) -> None:
    """Refuse hooks that lie beside the residual stream between blocks.

    Raises:
        SAEError: attention, MLP, mid-block and embedding hooks.
    """
    if _OTHER_PLACES.search(hook_name):
        raise SAEError(
            f"this SAE reads {hook_name!r}; only SAEs of the residual stream before or after a "
            "block are supported (blocks.N.hook_resid_pre, blocks.N.hook_resid_post)"
        )


def _check_supported(sae: sae_lens.SAE[Any]) -> None:
    name = sae.cfg.architecture()
    if isinstance(sae, sae_lens.TrainingSAE):
        raise SAEError(
            f"a {name} SAE in its training form encodes a token differently in every batch; "
            "save it with save_inference_model and load that"
        )
    check_architecture(name)
    if sae.cfg.reshape_activations != "none":
        raise SAEError(
            f"this SAE reads attention heads ({sae.cfg.reshape_activations}); "
            "only residual-stream SAEs are supported"
        )
    check_place(str(sae.cfg.metadata.hook_name or ""))


def _info(
    sae: sae_lens.SAE[Any],
    source: str,
    *,
    centre: bool | None,
    verified: bool,
    notes: Sequence[str],
) -> SAEInfo:
    meta = sae.cfg.metadata.to_dict()
    kwargs = meta.get("model_from_pretrained_kwargs") or {}
    declared = bool(meta.get("centre", kwargs.get("center_writing_weights", False)))
    trained_for = meta.get("k", getattr(sae.cfg, "k", None))
    return SAEInfo(
        architecture=sae.cfg.architecture(),
        d_in=sae.cfg.d_in,
        d_sae=sae.cfg.d_sae,
        k=None if trained_for is None else int(trained_for),
        hook_name=str(meta.get("hook_name") or ""),
        model_name=str(meta.get("model_name") or ""),
        model_fingerprint=meta.get("model_fingerprint"),
        skip_first=bool(meta.get("skip_first", True)),
        norm_limit=None if meta.get("norm_limit") is None else float(meta["norm_limit"]),
        centre=declared if centre is None else centre,
        source=source,
        sha256=weights_sha256(sae),
        release=meta.get("release"),
        sae_id=meta.get("sae_id"),
        repo_id=meta.get("repo_id"),
        revision=meta.get("revision"),
        verified=verified,
        notes=(*notes, *_unsettled(sae)),
    )


def _unsettled(sae: sae_lens.SAE[Any]) -> list[str]:
    """Input normalisations whose constants belong into the weights and were not put there."""
    norm = sae.cfg.normalize_activations
    if norm not in FOLDED_NORMS:
        return []
    return [f"trained with normalize_activations={norm!r}, whose constants are not recorded; "
            "inputs are read as they are"]  # fmt: skip
