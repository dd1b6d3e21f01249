from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from affectlens.data.masking import MaskRule
from affectlens.training.config import TrainConfig

HOOK = "blocks.1.hook_resid_post"
D_IN, D_TRUE = 32, 48


@dataclass
class Rows:
    acts: Tensor
    keep: Any


@dataclass
class MemoryStore:
    """The part of `ActivationStore` that training uses, over rows in memory."""

    train: Tensor
    held: Tensor
    sha256: str = "s" * 64
    hook_names: list[str] = field(default_factory=lambda: [HOOK])
    provenance: dict[str, Any] = field(
        default_factory=lambda: {"model": {"name": "m", "fingerprint": "f" * 64}}
    )

    @property
    def d_model(self) -> int:
        return self.train.shape[1]

    def mask_rule(self, hook: str) -> MaskRule:
        return MaskRule(skip_first=True, norm_limit=99.0)

    def n_kept(self, hook: str, part: str = "all") -> int:
        return {"train": len(self.train), "heldout": len(self.held)}.get(
            part, len(self.train) + len(self.held)
        )

    def first_not_finite(self, hook: str) -> tuple[str, int] | None:
        bad = (~torch.isfinite(torch.cat([self.train, self.held])).all(-1)).nonzero()
        return ("m", int(bad[0])) if len(bad) else None

    def heldout(self, hook: str, max_rows: int | None = None, *, kept_only: bool = True) -> Rows:
        acts = self.held[:max_rows]
        return Rows(acts, np.ones(len(acts), dtype=bool))

    def iter_batches(
        self, hook, batch_size, *, generator, part="train", epochs=None, buffer_share=1.0, skip=0
    ) -> Iterator[Tensor]:
        done = 0
        while epochs is None or done < epochs:
            done += 1
            order = torch.from_numpy(generator.permutation(len(self.train)))
            for start in range(0, len(order), batch_size):
                if skip:
                    skip -= 1
                    continue
                yield self.train[order[start : start + batch_size]]

    def token_windows(self, part="heldout", max_tokens=None):
        return []


def planted_rows(n: int, seed: int = 0, offset: float = 5.0) -> Tensor:
    """Sparse sums of three of `D_TRUE` known directions, off centre and far from norm one."""
    g = torch.Generator().manual_seed(77)
    directions = torch.nn.functional.normalize(torch.randn(D_TRUE, D_IN, generator=g), dim=-1)
    g = torch.Generator().manual_seed(seed)
    chosen = torch.rand(n, D_TRUE, generator=g).topk(3).indices
    z = torch.zeros(n, D_TRUE).scatter(1, chosen, 1 + torch.rand(n, 3, generator=g))
    return 40 * (z @ directions + offset)


@pytest.fixture(scope="session")
def store() -> MemoryStore:
    return MemoryStore(planted_rows(4096), planted_rows(512, seed=1))


@pytest.fixture(scope="session")
def fresh_rows() -> Tensor:
    """Rows that no store holds."""
    return planted_rows(8192, seed=2)


@pytest.fixture(scope="session")
def small_store() -> MemoryStore:
    return MemoryStore(planted_rows(1024), planted_rows(128, seed=1))


@pytest.fixture(scope="session")
def config() -> TrainConfig:
    return TrainConfig(
        d_sae=96,
        k=3,
        n_samples=60_000,
        batch_size=256,
        lr=1e-2,
        dead_window=2_000,
        backend="sae_lens",
    )
