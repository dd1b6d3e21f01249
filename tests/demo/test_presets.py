"""What a run knows of its features: presets by input and output, cards, search by words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from affectlens.data.errors import ConfigError
from affectlens.demo.presets import Catalogue, read_catalogue, with_lenses

from ..features.steered_model import D_SAE, DEAD, PLANTED, World, world


@pytest.fixture(scope="module")
def run() -> World:
    made = world()
    return replace(made, found=replace(made.found, screen=made.screen))


@pytest.fixture(scope="module")
def catalogue(run: World, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    folder: Path = tmp_path_factory.mktemp("run")
    return read_catalogue(
        folder, run.found, model="tiny", hook="h", sae=run.sae.info.sha256, d_sae=D_SAE
    )


def test_presets_are_the_choices_of_the_search(catalogue: Catalogue, run: World) -> None:
    grief = next(p for p in catalogue.presets if p.contrast == "grief")
    assert grief.by_input == tuple(run.found.top("grief", 5))
    assert grief.by_output == tuple(run.found.top("grief", 5, by="output"))
    assert grief.by_output[0] == PLANTED
    assert grief.clamp == ""  # this run measured no effect
    assert catalogue.presets[0].contrast == "all"


def test_a_latent_that_never_fired_has_no_unit(catalogue: Catalogue) -> None:
    assert catalogue.card(DEAD).max_active is None
    assert DEAD not in catalogue.maxima
    assert catalogue.card(PLANTED).max_active == catalogue.maxima[PLANTED] == 2.0
    with pytest.raises(ConfigError, match="0 to 63"):
        catalogue.card(D_SAE)


def test_findings_are_those_the_search_retained(catalogue: Catalogue, run: World) -> None:
    rows = run.found.table[run.found.table["retained"]]
    told = {(f.contrast, c.feature) for c in catalogue.cards.values() for f in c.findings}
    assert told == set(zip(rows["contrast"], rows["feature"], strict=True))


def test_presets_without_a_name_are_told_by_what_they_promote(
    catalogue: Catalogue, run: World
) -> None:
    shown = with_lenses(catalogue, run.lm, run.sae)
    assert " tears" in shown.card(PLANTED).promotes or " loss" in shown.card(PLANTED).promotes
    hits, n = shown.find("sorrow")
    assert PLANTED in [card.feature for card in hits]
    assert n == len(hits)
    assert shown.card(PLANTED).findings == catalogue.card(PLANTED).findings


def test_a_control_is_drawn_from_what_was_not_found(catalogue: Catalogue) -> None:
    drawn = [catalogue.any_other(seed) for seed in range(20)]
    assert all(card.max_active and not card.findings for card in drawn)
    assert catalogue.any_other(3) == catalogue.any_other(3)
