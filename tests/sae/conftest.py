import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sae_lens
import torch

from affectlens.sae.model import SparseAutoencoder
from affectlens.sae.saving import save_sae

D_IN, D_SAE, K = 8, 24, 4
CONFIGS: dict[str, tuple[type, dict[str, Any]]] = {
    "standard": (sae_lens.StandardSAE, {}),
    "gated": (sae_lens.GatedSAE, {}),
    "topk": (sae_lens.TopKSAE, {"k": K}),
    "abstopk": (sae_lens.AbsTopKSAE, {"k": K}),
    "jumprelu": (sae_lens.JumpReLUSAE, {}),
}


def make_raw(architecture: str = "topk", seed: int = 0, **settings: Any) -> Any:
    cls, extra = CONFIGS[architecture]
    metadata = settings.pop("metadata", {"hook_name": "blocks.1.hook_resid_post"})
    config = cls.__name__ + "Config"
    cfg = getattr(sae_lens, config)(
        d_in=D_IN,
        d_sae=D_SAE,
        metadata=sae_lens.saes.sae.SAEMetadata(**metadata),
        **{**extra, **settings},
    )
    sae = cls(cfg)
    generator = torch.Generator().manual_seed(seed)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    if architecture == "jumprelu":
        sae.threshold.data.abs_()
    return sae


@pytest.fixture(scope="session")
def raw() -> Callable[..., Any]:
    return make_raw


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(5, 3, D_IN, generator=torch.Generator().manual_seed(1)) + 0.7


def edit_without_seal(folder: Path, **changes: Any) -> None:
    """Change fields of cfg.json and drop its integrity record, as an edit by hand would."""
    cfg = json.loads((folder / "cfg.json").read_text())
    kept = {k: v for k, v in cfg.items() if k != "integrity"}
    (folder / "cfg.json").write_text(json.dumps({**kept, **changes}))


@pytest.fixture
def unseal() -> Callable[..., None]:
    return edit_without_seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small TopK SAE as we write it."""
    return save_sae(SparseAutoencoder(make_raw()), tmp_path / "sae")
