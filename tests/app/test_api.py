"""The plain functions work in the order in which the front page shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

import affectlens as al
from affectlens.data.errors import ConfigError
from affectlens.features.config import AuditConfig


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
    few = {"max_pairs": 2, "n_top": 3, "n_random": 3}
    found = al.search(lm, sae, battery, n_permutations=200, controls=False, screen=few, **allow)
    assert len(found.stats) == sae.d_sae
    assert found.controls is None
    assert found.screen is not None
    assert found.screen.summary.settings["n_top"] == 3
    with pytest.raises(ConfigError, match=r"unknown config key 'screen.n_tops'"):
        al.search(lm, sae, battery, screen={"n_tops": 1}, **allow)
    with pytest.raises(ConfigError, match=r"unknown config key 'controls.n_text'"):
        al.search(lm, sae, battery, controls={"n_text": 1}, **allow)
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


def test_audits_take_their_settings_as_keywords_or_as_one_object() -> None:
    battery = al.load_battery().select(limit=12)
    one = al.audit(battery, n_repeats=1, n_bootstrap=0)
    assert one == al.audit(battery, AuditConfig(n_repeats=1, n_bootstrap=0))
    with pytest.raises(ConfigError, match="settings in one way"):
        al.audit(battery, AuditConfig(), n_repeats=1)
    with pytest.raises(ConfigError, match=r"unknown config key 'audit.n_repeat'"):
        al.audit(battery, n_repeat=1)
    with pytest.raises(ConfigError, match=r"unknown config key 'defend.n_permutation'"):
        al.defend(battery, n_permutation=1)
