"""Nearest latents, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affectlens.data.errors import ConfigError
from affectlens.features.neighbours import Neighbour, nearest_by_cofiring, nearest_by_cosine
from affectlens.sae import metrics


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_cosine_against_a_full_matrix(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CANDIDATES_AT_ONCE", chunk)
    decoder = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)) * 3
    rows = decoder.numpy() / np.linalg.norm(decoder.numpy(), axis=1, keepdims=True)
    cosine = rows @ rows.T
    np.fill_diagonal(cosine, -2)
    found = nearest_by_cosine(decoder, [4, 29], 6)
    for feature, listed in zip([4, 29], found, strict=True):
        order = np.argsort(-cosine[feature])[:6]
        assert [n.feature for n in listed] == order.tolist()
        np.testing.assert_allclose([n.value for n in listed], cosine[feature][order], rtol=1e-5)


def test_cosine_without_direction() -> None:
    decoder = torch.tensor([[1.0, 0], [0, 0], [1, 1]])
    found = nearest_by_cosine(decoder, [0, 1], 5)
    assert [n.feature for n in found[0]] == [2]
    assert found[1] == ()
    assert nearest_by_cosine(decoder, [0], 0) == [()]
    assert nearest_by_cosine(decoder, [], 3) == []


def test_phi_is_the_correlation_of_firing() -> None:
    active = np.random.default_rng(0).random((200, 6)) < 0.4
    active[:, 5] = active[:, 0]
    active[:, 4] = False
    both = active.T.astype(np.int64) @ active.astype(np.int64)
    (found,) = nearest_by_cofiring(both[[0]], both.diagonal(), [0], 200, 5)
    assert found[0].feature == 5
    assert found[0].value == pytest.approx(1)
    for neighbour in found:
        expected = np.corrcoef(active[:, 0], active[:, neighbour.feature])[0, 1]
        assert neighbour.value == pytest.approx(expected)
        assert neighbour.value > 0
    assert {n.feature for n in found} <= {1, 2, 3, 5}


def test_phi_of_a_silent_latent_and_of_one_that_always_fires() -> None:
    fired = np.array([0, 10, 5])
    assert nearest_by_cofiring(np.array([[0, 0, 0]]), fired, [0], 10, 3) == [()]
    assert nearest_by_cofiring(np.array([[0, 10, 5]]), fired, [1], 10, 3) == [()]


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="no latent 3"):
        nearest_by_cosine(torch.ones(3, 2), [3], 1)
    with pytest.raises(ConfigError, match="n=-1"):
        nearest_by_cosine(torch.ones(3, 2), [0], -1)
    with pytest.raises(ConfigError, match="shape"):
        nearest_by_cofiring(np.zeros((1, 2), int), np.zeros(3, int), [0], 5, 1)
    assert Neighbour(1, 0.5) == Neighbour(1, 0.5)
