"""An SAE at a prompt, in a notebook and as a figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from affectlens.sae.errors import SAEError
from affectlens.sae.model import FitRecord, SparseAutoencoder

from ..display.test_cards import HOSTILE, TAGS, Page
from .conftest import D_SAE


@pytest.fixture
def sae(raw: Callable[..., Any]) -> SparseAutoencoder:
    return SparseAutoencoder(raw())


def test_an_sae_shows_what_it_is(sae: SparseAutoencoder) -> None:
    assert repr(sae).startswith("SparseAutoencoder(topk, d_in=8, d_sae=24, k=4, blocks.1.")
    page = Page(sae._repr_html_())
    assert "topk SAE, 8 wide, 24 latents, 4 active a token" in page.text
    assert "al.sae_check" in page.text
    assert "Warning." not in page.text


def test_a_misfit_is_the_warning(sae: SparseAutoencoder) -> None:
    sae.fit = FitRecord("abc", "the corpus", {"layer": "another layer does better"})
    sae.info = replace(sae.info, model_name=HOSTILE, notes=(HOSTILE,))
    page = Page(sae._repr_html_())
    assert page.tags <= TAGS
    assert "Warning. Does not fit: layer: another layer does better." in page.text


def test_the_nearest_latent_of_a_copy_has_cosine_one(sae: SparseAutoencoder) -> None:
    sae.sae.W_dec.data = torch.eye(D_SAE, 8)[torch.arange(D_SAE) % 8]
    axes = sae.plot.nearest(ax=Figure().add_subplot())
    heights = [bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]
    assert heights[-1] == sum(heights) == D_SAE
    assert "n = 24 latents of 24" in axes.texts[0].get_text().replace("\xa0", " ")


def test_density_is_of_all_latents(sae: SparseAutoencoder) -> None:
    rates = np.full(D_SAE, 0.01)
    rates[:4] = 0
    axes = sae.plot.density(pd.DataFrame({"firing_rate": rates}), ax=Figure().add_subplot())
    assert sum(bar.get_height() for bar in axes.patches) == D_SAE - 4  # type: ignore[attr-defined]
    assert "4 silent" in axes.texts[0].get_text().replace("\xa0", " ")
    with pytest.raises(SAEError, match="one row for each of the 24 latents"):
        sae.plot.density(pd.DataFrame({"firing_rate": rates[:5]}))
