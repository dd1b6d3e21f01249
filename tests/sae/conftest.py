import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import sae_lens
import torch
from safetensors.torch import save_file

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


class Cache:
    """The layout of the hub's cache: refs, snapshots, and blobs under the hash of their bytes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, repo_id: str, commit: str, files: dict[str, Any], ref: str = "main") -> None:
        home = self.root / f"models--{repo_id.replace('/', '--')}"
        (home / "refs").mkdir(parents=True, exist_ok=True)
        (home / "blobs").mkdir(exist_ok=True)
        (home / "refs" / ref).write_text(commit)
        for name, content in files.items():
            path = home / "snapshots" / commit / name
            path.parent.mkdir(parents=True, exist_ok=True)
            staged = home / "staged"
            self._write(staged, content)
            blob = home / "blobs" / hashlib.sha256(staged.read_bytes()).hexdigest()
            staged.replace(blob)
            path.symlink_to(blob)

    @staticmethod
    def _write(path: Path, content: Any) -> None:
        if callable(content):
            with path.open("wb") as handle:
                content(handle)
        elif "config" in content or "d_in" in content:
            path.write_text(json.dumps(content.get("config", content)))
        else:
            save_file(content, path)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Cache:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return Cache(tmp_path / "hub")
