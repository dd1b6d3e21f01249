"""The plain functions work in the order in which the front page shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

import affectlens as al


def test_search_without_a_store_can_be_followed_by_intervene_and_clamp(tmp_path: Path) -> None:
    lm = al.load_model("tiny:llama")
    battery = al.load_battery().select(emotions=["grief", "rage"])
    store = al.harvest(
        lm, "default", layer=2, out=tmp_path / "acts", avoid=battery, max_tokens=4000, quiet=True
    )
    sae = al.train(
        store, out=tmp_path / "sae", d_sae=96, k=8, n_samples=6000, batch_size=512, quiet=True
    )
    # A model of random weights predicts nothing that a reconstruction could keep.
    allow = {"allow_misfit": ["loss-recovered"]}
    found = al.search(lm, sae, battery, n_permutations=200, controls=False, **allow)
    assert len(found.stats) == sae.d_sae
    chosen = found.top("all", 2)
    effect = al.intervene(lm, sae, chosen, battery, n_random_sets=2, quiet=True, **allow)
    assert len(effect.verdicts) == 3
    with al.clamped(lm, sae, {chosen[0]: 5.0}, **allow) as tally:
        lm.generate("The day began like any other.", max_new_tokens=3)
    assert tally.calls == 3


def test_an_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    lm = al.load_model("tiny:llama")
    with pytest.raises(al.AffectLensError, match="did you mean 'max_tokens'"):
        al.harvest(lm, "default", out=tmp_path, max_token=100)


def test_a_store_may_be_named_by_its_folder(tmp_path: Path) -> None:
    lm = al.load_model("tiny:llama")
    al.harvest(lm, "default", layer=2, out=tmp_path / "acts", max_tokens=2000, quiet=True)
    small = {"n_samples": 1024, "batch_size": 512, "d_sae": 64, "quiet": True}
    (only,) = al.train_many(tmp_path / "acts", out=tmp_path / "saes", ks=4, **small)
    assert only.error == ""
    sae = al.train(str(tmp_path / "acts"), out=tmp_path / "sae", k=4, **small)
    assert al.sae_check(sae, store=tmp_path / "acts").n_tokens > 0
