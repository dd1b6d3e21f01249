"""Specs of many texts compiled into tensors, against the definition one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from affectlens.features.edit_plan import ErrorTerm
from affectlens.features.specs import (
    LATENT_SPECS,
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
    D,
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


VALUES = st.floats(-3, 3, width=32)


@st.composite
def any_spec(draw: st.DrawFn) -> Spec:
    features = tuple(draw(st.lists(st.integers(0, 11), min_size=1, max_size=3, unique=True)))
    values = tuple(draw(VALUES) for _ in features)
    vectors = torch.randn(2, D, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    unit_of = draw(st.sampled_from(["absolute", "residual_norm"]))
    return draw(
        st.sampled_from(
            [
                Ablate(features),
                Clamp(features, values),
                MinClamp(features, values),
                Scale(features, values[0]),
                SetRows(features, (values,)),
                AddLatents(features, values),
                AddDirection(vectors[0], values[0], unit_of),  # type: ignore[arg-type]
                ProjectOut(vectors),
            ]
        )
    )


def by_definition(
    sae: SparseAutoencoder, specs: Sequence[Spec], x: Tensor, error: ErrorTerm
) -> Tensor:
    """The specs one after the other on all latents [s, d_sae] and on the stream [s, d]."""
    z = sae.encode(x)
    new = torch.zeros_like(z) if error == "only" else z.clone()
    named = sorted({f for s in specs if isinstance(s, LATENT_SPECS) for f in s.features})
    new[:, named] = z[:, named]
    for spec in specs:
        if isinstance(spec, LATENT_SPECS):
            at = list(spec.features)
            if isinstance(spec, Ablate):
                new[:, at] = 0
            elif isinstance(spec, Scale):
                new[:, at] *= spec.factor
            elif isinstance(spec, MinClamp):
                new[:, at] = new[:, at].clamp(min=torch.tensor(spec.values))
            else:
                given = spec.values if isinstance(spec, Clamp) else spec.rows[0]
                new[:, at] = torch.as_tensor(given)
    out = sae.decode(new) + (0 if error == "drop" else x - sae.decode(z))
    norms = x.norm(dim=-1, keepdim=True)
    for spec in specs:
        if isinstance(spec, AddLatents):
            for feature, strength in zip(spec.features, spec.strengths, strict=True):
                out = out + strength * norms * unit(sae.W_dec[feature])
        elif isinstance(spec, AddDirection):
            v = torch.as_tensor(spec.vector)
            absolute = spec.unit == "absolute"
            out = out + spec.strength * (v if absolute else norms * unit(v))
        elif isinstance(spec, ProjectOut):
            q, _ = torch.linalg.qr(torch.as_tensor(spec.vectors).T)
            out = out - (out @ q) @ q.T
    return out


@settings(max_examples=120, deadline=None)
@given(
    rows=st.lists(st.lists(any_spec(), max_size=4).map(tuple), min_size=1, max_size=4),
    kind=st.sampled_from(["standard", "topk"]),
    error=st.sampled_from(["keep", "drop", "only"]),
    small=st.booleans(),
)
def test_any_rows_equal_the_definition(
    rows: list[tuple[Spec, ...]], kind: str, error: ErrorTerm, *, small: bool
) -> None:
    sae = shared(kind)
    x = torch.randn(len(rows), 3, D, generator=torch.Generator().manual_seed(len(rows)))
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr("affectlens.features.edit_plan._LARGEST_ENCODE", 1)
        found, _ = run(sae, [PerRow(tuple(rows))], x, error)
    for index, row in enumerate(rows):
        wanted = by_definition(sae, row, x[index], error)
        got = x[index] if found is None else found[index]
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_many_latents_that_differ_between_texts_share_one_table(
    sae: SparseAutoencoder, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (
        (Clamp((1, 5), (1.0, 2.0)),),
        (Ablate((30,)), Scale((31,), 3.0)),
        (SetRows((5, 2), ((1.0, 3.0),)),),
    )
    found = [run(sae, [PerRow(rows)], x, error)[0] for error in ("keep", "drop", "only")]
    monkeypatch.setattr("affectlens.features.edit_plan._LARGEST_TABLE", 0)
    for error, wanted in zip(("keep", "drop", "only"), found, strict=True):
        assert wanted is not None
        close(run(sae, [PerRow(rows)], x, error)[0], wanted)


@pytest.mark.parametrize("kind", ["standard", "jumprelu", "gated"])
def test_few_latents_are_read_without_the_others(
    kind: str, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = made(kind)
    wanted, _ = run(sae, [Clamp((3, 9), (4.0, 5.0))], x)
    z = sae.encode(x)
    assert wanted is not None
    new = z.clone()
    new[..., 3], new[..., 9] = 4, 5
    close(wanted, x + sae.decode(new) - sae.decode(z))

    def refuse(_: Tensor) -> Tensor:
        raise AssertionError("all latents were encoded")

    monkeypatch.setattr(sae, "encode", refuse)
    again, _ = run(sae, [Clamp((3, 9), (4.0, 5.0))], x)
    assert again is not None
    assert torch.equal(again, wanted)


def test_a_latent_at_its_threshold_is_read_in_full(
    x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the last bits of a product decide whether it fires, so only a full encode may."""
    sae = made("jumprelu")
    raw = sae.sae
    inner = x[1, 2] - raw.b_dec * raw.cfg.apply_b_dec_to_input
    raw.b_enc.data[3] = raw.threshold[3] - inner @ raw.W_enc[:, 3]
    calls = []
    encode = sae.encode

    def watched(given: Tensor) -> Tensor:
        calls.append(1)
        return encode(given)

    monkeypatch.setattr(sae, "encode", watched)
    run(sae, [Clamp((3,), (4.0,))], x[:1])
    assert not calls
    run(sae, [Clamp((3,), (4.0,))], x)
    assert calls
