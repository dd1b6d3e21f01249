"""What each spec does to a residual, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

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
from affectlens.sae.model import SparseAutoencoder

from .edited_streams import (
    KINDS,
    D,
    N,
    close,
    made,
    run,
    shared,
    unit,
)


@pytest.fixture(scope="module")
def sae() -> SparseAutoencoder:
    return shared("standard")


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(3, 4, D, generator=torch.Generator().manual_seed(4)) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_latent_specs_write_the_difference_of_two_decodes(kind: str, x: Tensor) -> None:
    sae = made(kind)
    z = sae.encode(x)
    rows = ((0.5, 0.0), (0.1, 2.0), (3.0, 1.0))
    for spec, new in (
        (Ablate((2, 5)), torch.zeros_like(z[..., [2, 5]])),
        (Clamp((2, 5), (1.5, 0.25)), torch.tensor([1.5, 0.25]).expand(3, 4, 2)),
        (MinClamp((2, 5), (0.3, 0.6)), z[..., [2, 5]].clamp(min=torch.tensor([0.3, 0.6]))),
        (Scale((2, 5), -2.0), z[..., [2, 5]] * -2),
        (SetRows((2, 5), rows), torch.tensor(rows)[:, None].expand(3, 4, 2)),
        (SetRows((2, 5), torch.tensor(rows)), torch.tensor(rows)[:, None].expand(3, 4, 2)),
    ):
        wanted = z.clone()
        wanted[..., [2, 5]] = new
        found, tally = run(sae, [spec], x)
        delta = sae.decode(wanted) - sae.decode(z)
        close(found, x + delta)
        assert tally.norm_sum == pytest.approx(float(delta.norm(dim=-1).sum()), rel=1e-4)


def test_the_order_of_features_in_a_spec_is_that_of_its_values(
    sae: SparseAutoencoder, x: Tensor
) -> None:
    found, _ = run(sae, [Clamp((9, 2, 5), (3.0, 1.0, 2.0))], x)
    other, _ = run(sae, [Clamp((2, 5, 9), (1.0, 2.0, 3.0))], x)
    assert found is not None
    assert other is not None
    assert torch.equal(found, other)


def test_a_later_spec_sees_what_an_earlier_one_wrote(sae: SparseAutoencoder, x: Tensor) -> None:
    z = sae.encode(x)[..., 4:5]
    row = sae.W_dec[4]
    clamp, double, floor = Clamp((4,), (1.0,)), Scale((4,), 2.0), MinClamp((4,), (1.5,))
    close(run(sae, [clamp, double], x)[0], x + (2 - z) * row)
    close(run(sae, [double, clamp], x)[0], x + (1 - z) * row)
    close(run(sae, [clamp, floor, double], x)[0], x + (3 - z) * row)
    # Another latent does not wait for this one.
    close(
        run(sae, [clamp, Clamp((7,), (2.0,)), double], x)[0],
        x + (2 - z) * row + (2 - sae.encode(x)[..., 7:8]) * sae.W_dec[7],
    )


def test_residual_specs_follow_the_latent_ones_in_their_own_order(
    sae: SparseAutoencoder, x: Tensor
) -> None:
    z = sae.encode(x)[..., 4:5]
    v, w = torch.eye(D)[0], torch.eye(D)[1]
    add, drop = AddDirection(v, 5.0), ProjectOut(v[None])
    latent = x + (3 - z) * sae.W_dec[4]
    without = latent.clone()
    without[..., 0] = 0
    clamp = Clamp((4,), (3.0,))
    close(run(sae, [add, drop, clamp], x)[0], without)
    close(run(sae, [drop, add, clamp], x)[0], without + 5 * v)
    close(run(sae, [drop, add, AddDirection(w, 2.0), drop, clamp], x)[0], without + 2 * w)


def test_added_latents_have_the_strength_in_units_of_the_norm(
    sae: SparseAutoencoder, x: Tensor
) -> None:
    norms = x.norm(dim=-1, keepdim=True)
    rows = unit(sae.W_dec[[3, 8]])
    found, tally = run(sae, [AddLatents((3, 8), (0.5, -0.25))], x)
    close(found, x + norms * (0.5 * rows[0] - 0.25 * rows[1]))
    found, tally = run(sae, [AddLatents((3,), (0.5,))], x)
    assert tally.norm_sum == pytest.approx(0.5 * float(norms.sum()), rel=1e-5)
    # The norm is that of what comes in, so two additions do not feed on each other.
    twice, _ = run(sae, [AddLatents((3,), (0.25,)), AddLatents((3,), (0.25,))], x)
    assert found is not None
    close(twice, found)


def test_a_direction_is_absolute_or_in_units_of_the_norm(sae: SparseAutoencoder, x: Tensor) -> None:
    v = torch.arange(1.0, D + 1)
    for vector in (v, tuple(v.tolist()), v.numpy()):
        close(run(sae, [AddDirection(vector, -0.5)], x)[0], x - 0.5 * v)
    close(
        run(sae, [AddDirection(v, 0.1, "residual_norm")], x)[0],
        x + 0.1 * x.norm(dim=-1, keepdim=True) * unit(v),
    )


def test_projecting_out_leaves_no_component(sae: SparseAutoencoder, x: Tensor) -> None:
    generator = torch.Generator().manual_seed(6)
    vectors = torch.randn(3, D, generator=generator) * torch.tensor([[1e-3], [1.0], [1e3]])
    found, _ = run(sae, [ProjectOut(vectors)], x)
    assert found is not None
    assert float((found @ unit(vectors).T).abs().max()) < 1e-5
    # What is orthogonal to them stays: least squares tells the part that goes.
    part = np.linalg.lstsq(vectors.T.double().numpy(), x.reshape(-1, D).T.numpy(), rcond=None)[0]
    close(found, x - (torch.from_numpy(part.T) @ vectors.double()).float().view_as(x))


def test_dependent_directions_are_removed_as_their_span(sae: SparseAutoencoder, x: Tensor) -> None:
    v, w = torch.eye(D)[2], torch.eye(D)[3]
    plain, _ = run(sae, [ProjectOut(torch.stack([v, w]))], x)
    more, _ = run(sae, [ProjectOut(torch.stack([v, 2 * v, v + w, w]))], x)
    assert plain is not None
    close(more, plain)
    assert float(plain[..., 4:].sub(x[..., 4:]).abs().max()) == 0
    pair = torch.randn(2, D, generator=torch.Generator().manual_seed(9))
    plain, _ = run(sae, [ProjectOut(pair)], x)
    mixed = torch.randn(5, 2, generator=torch.Generator().manual_seed(10)) @ pair
    assert plain is not None
    close(run(sae, [ProjectOut(mixed)], x)[0], plain)
    one, _ = run(sae, [ProjectOut(v)], x)
    close(one, x * (1 - v))


def test_rows_of_specs_equal_one_text_each(sae: SparseAutoencoder, x: Tensor) -> None:
    v = torch.eye(D)[1]
    rows: tuple[tuple[Spec, ...], ...] = (
        (Clamp((1, 6), (2.0, 1.0)), Scale((1,), 0.5), AddLatents((3,), (0.2,))),
        (),
        (ProjectOut(v[None]), MinClamp((30,), (1.0,)), AddDirection(v, 2.0), ProjectOut(v[None])),
    )
    shared = Clamp((6,), (4.0,))
    found, tally = run(sae, [PerRow(rows)], x)
    both, _ = run(sae, [shared, PerRow(rows), AddLatents((2,), (0.1,))], x)
    assert found is not None
    assert both is not None
    assert tally.row_norms is not None
    for index, row in enumerate(rows):
        alone, own = run(sae, row, x[index : index + 1])
        close(found[index], x[index] if alone is None else alone[0])
        assert tally.row_norms[index] == pytest.approx(own.norm_sum, rel=1e-5)
        alone, _ = run(sae, [shared, *row, AddLatents((2,), (0.1,))], x[index : index + 1])
        assert alone is not None
        close(both[index], alone[0])
    assert torch.equal(found[1], x[1])
    assert tally.row_tokens is not None
    assert tally.row_tokens.tolist() == [4, 0, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_can_be_dropped_or_left_alone(kind: str, x: Tensor) -> None:
    sae = made(kind)
    z = sae.encode(x)
    empty = sae.decode(torch.zeros_like(z))
    specs = [Clamp((2,), (1.5,)), Scale((5,), 1.0)]
    new = z.clone()
    new[..., 2] = 1.5
    close(run(sae, [], x, "drop")[0], sae.decode(z))
    close(run(sae, specs, x, "drop")[0], sae.decode(new))
    close(run(sae, [], x, "only")[0], x - sae.decode(z) + empty)
    kept = torch.zeros_like(z)
    kept[..., 2], kept[..., 5] = 1.5, z[..., 5]
    close(run(sae, specs, x, "only")[0], x - sae.decode(z) + sae.decode(kept))
    close(run(sae, [AddDirection(torch.ones(D))], x, "only")[0], x - sae.decode(z) + empty + 1)


def test_error_terms_of_an_sae_that_normalises_at_run_time(x: Tensor) -> None:
    sae = made(normalize_activations="layer_norm")
    z = sae.encode(x)
    kept = torch.zeros_like(z)
    kept[..., :5] = z[..., :5]
    part = (z - kept) @ sae.W_dec * x.std(-1, keepdim=True)
    close(run(sae, [Scale(tuple(range(5)), 1.0)], x, "only")[0], x - part)
    close(run(sae, [], x, "drop")[0], sae.reconstruct(x))


@pytest.mark.parametrize(
    "specs",
    [
        [],
        [Scale((1, 2), 1.0)],
        [AddDirection((0.0,) * D)],
        [AddDirection((1.0,) * D, 0.0)],
        [AddDirection((1.0,) * D, 0.0, "residual_norm")],
        [AddLatents((1, 2), (0.0, 0.0))],
        [MinClamp((1, 2), (0.0, -1.0))],
        [PerRow(((), (), ()))],
        [PerRow(((Scale((1,), 1.0),), (), (AddLatents((4,), (0.0,)),)))],
        [Clamp((1,), (5.0,)), Scale((1,), 0.0), Ablate((1,)), PerRow(((), (), ()))],
    ],
)
def test_what_changes_nothing_writes_nothing(
    sae: SparseAutoencoder, x: Tensor, specs: list[Spec]
) -> None:
    silent = x.clone()
    if len(specs) == 4:  # an ablation of a latent that is silent
        silent = x[:, :1] * 0 + _silencing(sae, 1)
    found, tally = run(sae, specs, silent)
    assert found is None
    assert (tally.calls, tally.tokens, tally.norm_sum) == (1, 0, 0.0)
    assert tally.row_tokens is not None
    assert tally.row_tokens.tolist() == [0, 0, 0]


def _silencing(sae: SparseAutoencoder, feature: int) -> Tensor:
    x = -10 * sae.sae.W_enc[:, feature] + sae.b_dec
    assert float(sae.encode(x)[feature]) == 0
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_own_values_write_nothing(kind: str, x: Tensor) -> None:
    """One token a text, so that a row can hold the latents' own values."""
    sae, one = made(kind), x[:, :1]
    z = sae.encode(one)[:, 0]
    for features in ((0, 3, 7), tuple(range(N))):
        own = z[:, list(features)]
        assert run(sae, [SetRows(features, own)], one)[0] is None
        rows = tuple((Clamp(features, tuple(row.tolist())),) for row in own)
        assert run(sae, [PerRow(rows)], one)[0] is None
