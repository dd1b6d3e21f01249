"""First-order effects against finite differences, exact single edits and joint edits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from affectlens.data.hooks import edit
from affectlens.data.models import LanguageModel
from affectlens.data.tiny import FAMILIES, tiny_model
from affectlens.features.attribution import FirstOrder, attribute
from affectlens.features.interventions import residual_edit
from affectlens.features.readouts import Readout, build_readout, readout_of
from affectlens.features.specs import Ablate, Clamp, Scale, SetRows, Spec
from affectlens.sae.model import SparseAutoencoder

from .made_saes import HOOK, topk_sae, unit_rows

WORDS = {
    "grief": ("tears", "loss", "sorrow"),
    "rage": ("wrath", "fury", "anger"),
    "calm": ("quiet", "still", "even"),
}
SINGLE = tuple(word for words in WORDS.values() for word in words)
TEXTS = ["She read it twice.", "The boat left.", "He folded the map, and went on."]
TEMPLATES = ("\nIt felt", " All in all it was")
D_SAE = 48


def make_lm(family: str = "llama") -> LanguageModel:
    return tiny_model(family, n_layers=3, words=SINGLE)


def make_readout(lm: LanguageModel) -> Readout:
    return build_readout(lm, WORDS, TEMPLATES)


def make_sae(
    lm: LanguageModel,
    *,
    hook: str = HOOK,
    norm: str = "none",
    norm_limit: float | None = None,
) -> SparseAutoencoder:
    rows = unit_rows(D_SAE, lm.d_model) * torch.linspace(0.5, 1.5, D_SAE)[:, None]
    return topk_sae(lm, rows, k=6, hook=hook, norm_limit=norm_limit, norm=norm)


def exact(
    lm: LanguageModel, sae: SparseAutoencoder, readout: Readout, specs: list[Spec], text: str
) -> npt.NDArray[np.float64]:
    """Effect on every column of an edited full pass over one text."""
    before = readout_of(lm, [text], readout)
    fn, _ = residual_edit(sae, specs)
    with edit(lm, {sae.info.hook_name: fn}):
        return (readout_of(lm, [text], readout) - before)[0]


def own_columns(readout: Readout) -> npt.NDArray[np.int64]:
    return np.arange(len(TEXTS)) % len(readout.names)


def in_double(lm: LanguageModel) -> LanguageModel:
    """Finite differences need more digits than single precision has."""
    lm.model.double()
    return lm


@pytest.mark.parametrize("family", FAMILIES)
def test_small_changes_follow_the_gradient(family: str) -> None:
    lm = in_double(make_lm(family))
    sae, readout = make_sae(lm), make_readout(lm)
    columns = own_columns(readout)
    (found,) = attribute(lm, sae, TEXTS, readout, [columns], batch_size=4)
    for text, column in enumerate(columns):
        alone = np.array([text])
        set_to = found.mean_set(sae, np.full(D_SAE, 0.001), alone)
        silent = np.flatnonzero(found.mean_ablate(alone) == 0)
        for feature in silent[:3]:
            up = exact(lm, sae, readout, [Clamp((int(feature),), (0.001,))], TEXTS[text])
            assert up[column] == pytest.approx(set_to[feature], rel=0.05, abs=1e-6)


def test_scaling_an_active_latent_has_the_slope_of_its_ablation() -> None:
    lm = in_double(make_lm())
    sae, readout = make_sae(lm), make_readout(lm)
    columns = own_columns(readout)
    (found,) = attribute(lm, sae, TEXTS, readout, [columns])
    for text, column in enumerate(columns):
        effects = found.mean_ablate(np.array([text]))
        for feature in np.argsort(-np.abs(effects))[:4]:
            # Central difference of the factor at 1: ablation is a step of -1 along it.
            up, down = (
                exact(lm, sae, readout, [Scale((int(feature),), 1 + h)], TEXTS[text])[column]
                for h in (1e-3, -1e-3)
            )
            assert -(up - down) / 2e-3 == pytest.approx(effects[feature], rel=2e-3, abs=1e-7)


def test_layouts_do_not_matter() -> None:
    lm = make_lm()
    sae, readout = make_sae(lm), make_readout(lm)
    columns = own_columns(readout)
    alls = np.full(len(TEXTS), readout.names.index("all"))
    one, two = attribute(lm, sae, TEXTS, readout, [columns, alls], batch_size=1)
    for batch_size in (2, 16):
        again = attribute(lm, sae, TEXTS, readout, [columns, alls], batch_size=batch_size)
        for a, b in zip((one, two), again, strict=True):
            np.testing.assert_allclose(a.ablate.toarray(), b.ablate.toarray(), atol=2e-5)
            np.testing.assert_allclose(a.pull, b.pull, atol=2e-4)
    turned = attribute(lm, sae, TEXTS[::-1], readout, [columns[::-1]])[0]
    np.testing.assert_allclose(turned.pull[::-1], one.pull, atol=2e-4)


def test_a_latent_is_silent_where_it_does_not_fire_and_on_masked_tokens() -> None:
    lm = make_lm()
    readout = make_readout(lm)
    columns = own_columns(readout)
    (free,) = attribute(lm, make_sae(lm), TEXTS, readout, [columns])
    (masked,) = attribute(lm, make_sae(lm, norm_limit=1e-6), TEXTS, readout, [columns])
    assert free.ablate.nnz > 0
    assert masked.ablate.nnz == 0
    assert not masked.pull.any()
    np.testing.assert_array_equal(masked.scale, 1)


@pytest.mark.parametrize("target", [False, True])
@pytest.mark.parametrize("norm", ["none", "layer_norm"])
def test_integrated_gradients_are_complete(norm: str, target: bool) -> None:
    lm = in_double(make_lm())
    sae, readout = make_sae(lm, norm=norm), make_readout(lm)
    columns = own_columns(readout)
    rng = np.random.default_rng(0)
    values = 0.3 * rng.random((len(TEXTS), D_SAE)).astype(np.float32) if target else None
    (path,) = attribute(lm, sae, TEXTS, readout, [columns], targets=values, n_steps=30)
    (plain,) = attribute(lm, sae, TEXTS, readout, [columns])
    every = tuple(range(D_SAE))

    def total(found: FirstOrder, text: int) -> float:
        here = np.array([text])
        effects = found.mean_ablate(here) if values is None else found.mean_set(sae, values, here)
        return float(effects.sum())

    errors: dict[str, list[float]] = {"path": [], "plain": []}
    for text, column in enumerate(columns):
        spec = Ablate(every) if values is None else SetRows(every, values[[text]])
        # Batches of one row, since each suffix is a row and takes the values of the one text.
        before = readout_of(lm, [TEXTS[text]], readout, batch_size=1)
        fn, _ = residual_edit(sae, [spec])
        with edit(lm, {sae.info.hook_name: fn}):
            joint = float(
                (readout_of(lm, [TEXTS[text]], readout, batch_size=1) - before)[0, column]
            )
        assert total(path, text) == pytest.approx(joint, rel=0.02, abs=2e-3)
        errors["path"].append(abs(total(path, text) - joint))
        errors["plain"].append(abs(total(plain, text) - joint))
    assert sum(errors["path"]) < 0.1 * sum(errors["plain"])


@pytest.mark.parametrize("hook", ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre"])
def test_hooks_before_a_block(hook: str) -> None:
    lm = in_double(make_lm())
    sae, readout = make_sae(lm, hook=hook), make_readout(lm)
    columns = own_columns(readout)
    (found,) = attribute(lm, sae, TEXTS, readout, [columns])
    effects = found.mean_set(sae, np.full(D_SAE, 1e-4), np.array([1]))
    is_silent = found.mean_ablate(np.array([1])) == 0
    silent = int(np.argmax(np.where(is_silent, np.abs(effects), 0)))
    got = exact(lm, sae, readout, [Clamp((silent,), (1e-4,))], TEXTS[1])[columns[1]]
    assert got == pytest.approx(effects[silent], rel=0.1)


def test_means_over_texts_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make_lm()
    sae, readout = make_sae(lm), make_readout(lm)
    (found,) = attribute(lm, sae, TEXTS, readout, [own_columns(readout)])
    values = np.random.default_rng(1).random((len(TEXTS), D_SAE)).astype(np.float32)
    some = np.array([0, 2])
    by_hand = np.mean(
        [
            values[i] * (sae.W_dec.numpy().astype(float) @ found.pull[i])
            + found.ablate.toarray()[i]
            for i in some
        ],
        axis=0,
    )
    np.testing.assert_allclose(found.mean_set(sae, values, some), by_hand, atol=1e-9)
    monkeypatch.setattr("affectlens.features.attribution._MAX_ENTRIES", 70)
    np.testing.assert_allclose(found.mean_set(sae, values, some), by_hand, atol=1e-9)
    (chunked,) = attribute(lm, sae, TEXTS, readout, [own_columns(readout)])
    np.testing.assert_allclose(chunked.ablate.toarray(), found.ablate.toarray(), atol=1e-6)
    assert np.isnan(found.mean_ablate(np.array([], dtype=np.int64))).all()
    assert np.isnan(found.mean_set(sae, values, np.array([], dtype=np.int64))).all()
