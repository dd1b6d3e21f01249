"""Which specs are refused, before and while they run."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from affectlens.data.errors import ConfigError, ModelError
from affectlens.features.interventions import residual_edit
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
from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder

from .edited_streams import (
    D,
    N,
    made,
    run,
    shared,
)


@pytest.fixture(scope="module")
def sae() -> SparseAutoencoder:
    return shared("standard")


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(3, 4, D, generator=torch.Generator().manual_seed(4)) * 2


HUGE = 3e38
BAD: list[tuple[list[object], str]] = [
    ([Ablate((N,))], f"feature {N} is outside the SAE: allowed are 0 to {N - 1}"),
    ([Ablate((-1,))], "feature -1 is outside the SAE"),
    ([AddLatents((N,), (1.0,))], "is outside the SAE"),
    ([Ablate((1.5,))], "a feature must be a whole number"),  # type: ignore[arg-type]
    ([Ablate(())], "Ablate names no feature"),
    ([Scale((1, 1), 2.0)], "Scale names feature 1 twice"),
    ([Clamp((1, 2), (1.0,))], "2 features but 1 values"),
    ([MinClamp((1, 2), (1.0,))], "2 features but 1 values"),
    ([AddLatents((1, 2), (1.0,))], "2 features but 1 values"),
    ([SetRows((1, 2), ((1.0,), (2.0,)))], "2 features but rows of 1 values"),
    ([SetRows((1,), ((1.0,), (2.0, 3.0)))], "in rows of equal length"),
    ([SetRows((1,), ())], "need one row for each text"),
    ([SetRows((1,), torch.ones(3))], "SetRows must have 2 dimensions"),
    ([SetRows((1,), torch.ones(3, 1)), PerRow(((), ()))], re.escape("got [2, 3] rows")),
    ([PerRow(())], "need one row for each text"),
    ([PerRow((Ablate((1,)),))], "needs a tuple of specs for each text, got Ablate for text 0"),
    ([PerRow(((), (PerRow(((),)),)))], "text 1: a PerRow cannot lie inside a PerRow"),
    ([PerRow(((), (Ablate((N,)),)))], "text 1: feature 40 is outside"),
    ([PerRow(((SetRows((1,), ((1.0,), (2.0,))),), ()))], "needs one row, got 2; use Clamp"),
    (["ablate"], "'ablate' is not a spec"),
    (Ablate((1,)), "must be a list of specs, got Ablate; write"),  # type: ignore[list-item]
    ([AddDirection((1.0,))], "the direction has 1 entries but the residual has 8"),
    ([ProjectOut(torch.ones(2, 3))], "the direction has 3 entries"),
    ([ProjectOut(())], "holds no direction"),
    ([ProjectOut(torch.stack([torch.ones(D), torch.zeros(D)]))], "a direction is zero"),
    ([AddDirection(torch.zeros(D), 1.0, "residual_norm")], "the vector is zero"),
    ([AddDirection(torch.ones(D), 1.0, "norm")], "unknown unit 'norm'"),  # type: ignore[arg-type]
    ([AddDirection(torch.ones(D) * HUGE, 2.0)], "infinite or not a number"),
    ([AddDirection(("a",) * D)], "must be numbers"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("specs", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_specs_are_refused(sae: SparseAutoencoder, specs: list[Spec], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        residual_edit(sae, specs)


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), -float("inf"), 1e39])
def test_numbers_that_are_not_finite_are_refused(sae: SparseAutoencoder, bad: float) -> None:
    vector = (bad,) + (0.0,) * (D - 1)
    for spec in (
        Clamp((1,), (bad,)),
        MinClamp((1,), (bad,)),
        Scale((1,), bad),
        SetRows((1,), ((bad,),)),
        SetRows((1,), torch.tensor([[bad]])),
        AddLatents((1,), (bad,)),
        AddDirection(vector),
        AddDirection(torch.tensor(vector), 0.5, "residual_norm"),
        AddDirection((1.0,) * D, bad),
        ProjectOut((vector,)),
        ProjectOut(np.array([vector])),
    ):
        for specs in ([spec], [PerRow(((spec,),))]):
            with pytest.raises(ConfigError, match="infinite or not a number"):
                residual_edit(sae, specs)


@pytest.mark.parametrize(
    ("dtype", "spec"),
    [
        (torch.float32, AddDirection((HUGE,) * D)),
        (torch.float32, Clamp((1,), (HUGE,))),
        (torch.float32, AddLatents((1,), (HUGE,))),
        (torch.float16, AddDirection((7e4,) * D)),
        (torch.float16, Clamp((1,), (1e6,))),
        (torch.bfloat16, AddDirection((HUGE, *([0.0] * (D - 1))))),
    ],
)
def test_an_edit_that_overflows_is_refused(
    sae: SparseAutoencoder, x: Tensor, dtype: torch.dtype, spec: Spec
) -> None:
    with pytest.raises(ConfigError, match=f"not finite in {dtype} .text 0.*smaller strength"):
        run(sae, [spec], x.to(dtype))
    clean = x.clone()
    with pytest.raises(ConfigError, match="text 2 of the batch"):
        run(sae, [PerRow(((), (), (spec,)))], clean.to(dtype))


def test_two_additions_that_overflow_together_are_refused(
    sae: SparseAutoencoder, x: Tensor
) -> None:
    with pytest.raises(ConfigError, match="not finite"):
        run(sae, [AddDirection((HUGE,) * D), AddDirection((HUGE,) * D)], x)


def test_a_residual_that_came_in_broken_is_named(sae: SparseAutoencoder, x: Tensor) -> None:
    broken = x.clone()
    broken[1, 2] = float("nan")
    with pytest.raises(ModelError, match="before the intervention"):
        run(sae, [Clamp((1,), (2.0,))], broken)


def test_half_precision_is_rounded_once(sae: SparseAutoencoder, x: Tensor) -> None:
    half = x.to(torch.bfloat16)
    v = torch.full((D,), 1 / 3)
    found, _ = run(sae, [AddDirection(v)], half)
    assert found is not None
    assert torch.equal(found, (half.float() + v).to(torch.bfloat16))
    # What rounding takes away is no change.
    assert run(sae, [AddDirection(v * 1e-9)], half)[0] is None


def test_batch_and_width_must_match(sae: SparseAutoencoder, x: Tensor) -> None:
    for spec in (SetRows((1,), ((0.0,),)), PerRow(((),))):
        with pytest.raises(ConfigError, match="holds 1 rows but the batch has 3 texts"):
            run(sae, [spec], x)
    with pytest.raises(SAEError, match="residual of width 4, this SAE reads d_in=8"):
        run(sae, [AddDirection((1.0,) * D)], x[..., :4])


def test_an_unknown_error_term_is_refused(sae: SparseAutoencoder) -> None:
    with pytest.raises(ConfigError, match="allowed are 'keep', 'drop', 'only'"):
        residual_edit(sae, [], error="none")  # type: ignore[arg-type]


def test_a_dead_decoder_row_has_no_direction(x: Tensor) -> None:
    sae = made()
    sae.sae.W_dec.data[5] = 0
    with pytest.raises(ConfigError, match="a decoder row is zero"):
        residual_edit(sae, [AddLatents((5,), (1.0,))])
