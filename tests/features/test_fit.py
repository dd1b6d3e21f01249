"""Every stage refuses an SAE that does not fit, unless the misfit is named, and then says so."""

import contextlib
import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import sae_lens
import torch

import affectlens as al
from affectlens.data.errors import ConfigError
from affectlens.features.config import SearchConfig
from affectlens.features.effects import intervene
from affectlens.features.effects_config import InterveneConfig, SteerConfig
from affectlens.features.fit import require_fit, stored_hook
from affectlens.features.interventions import applied, clamped
from affectlens.features.results import EffectsSummary, SearchSummary, read_generations
from affectlens.features.search import SearchResult, search
from affectlens.features.specs import Ablate
from affectlens.features.steering import steer
from affectlens.features.text_means import text_statistics
from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder

HOOK = "blocks.1.hook_resid_post"
OTHER = "0" * 64


def make_sae(hook=HOOK, fingerprint=OTHER, d_in=32):
    cfg = sae_lens.TopKSAEConfig(d_in=d_in, d_sae=48, k=6)
    cfg.metadata = sae_lens.saes.sae.SAEMetadata(
        hook_name=hook, model_name="another", model_fingerprint=fingerprint
    )
    raw = sae_lens.TopKSAE(cfg)
    generator = torch.Generator().manual_seed(0)
    for parameter in raw.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return SparseAutoencoder(raw)


@pytest.fixture(scope="module")
def llama():
    return al.load_model("tiny:llama")


@pytest.fixture(scope="module")
def battery():
    return al.load_battery().select(emotions=["grief", "rage"], limit=12)


@pytest.fixture(scope="module")
def found(llama, battery) -> SearchResult:
    config = SearchConfig(n_permutations=100, min_items=1)
    made = search(llama, make_sae(), battery, config, allow_misfit=["fingerprint"])
    stats = text_statistics(llama, make_sae(), battery.texts[:8])
    return replace(made, stats=stats)


def store(hooks=(HOOK,), d_model=32, fingerprint=None):
    made = {"model": {"fingerprint": fingerprint}}
    return SimpleNamespace(hook_names=list(hooks), d_model=d_model, provenance=made)


def run_search(lm, sae, found, battery, allow):
    config = SearchConfig(n_permutations=100, min_items=1)
    return search(lm, sae, battery, config, allow_misfit=allow).summary.misfits


def run_intervene(lm, sae, found, battery, allow):
    config = InterveneConfig(n_random_sets=1, n_permutations=100, interventions=("ablate_zero",))
    chosen = found.top("all", 2)
    result = intervene(lm, sae, chosen, battery, config, quiet=True, allow_misfit=allow)
    return result.summary.misfits


def run_steer(lm, sae, found, battery, allow):
    config = SteerConfig(max_new_tokens=2, strengths=(1.0,), prompts=("The day began",))
    rows = steer(lm, sae, found.top("all", 2), config, quiet=True, allow_misfit=allow)
    assert all(row.misfits == rows[0].misfits for row in rows)
    return rows[0].misfits


def run_clamped(lm, sae, found, battery, allow):
    with clamped(lm, sae, {0: 1.0}, allow_misfit=allow) as tally:
        lm.generate("The day began", max_new_tokens=1)
    return tally.misfits


def run_applied(lm, sae, found, battery, allow):
    with applied(lm, sae, [Ablate((0,))], allow_misfit=allow) as tally:
        lm.generate("The day began", max_new_tokens=1)
    return tally.misfits


@contextlib.contextmanager
def warnings_logged():
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("affectlens")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


STAGES = [run_search, run_intervene, run_steer, run_clamped, run_applied]


@pytest.mark.parametrize("stage", STAGES)
def test_other_weights_are_refused_unless_named(stage, llama, found, battery):
    with pytest.raises(SAEError, match=r"fingerprint 000000000000.*--allow-misfit fingerprint"):
        stage(llama, make_sae(), found, battery, ())
    with warnings_logged() as messages:
        said = stage(llama, make_sae(), found, battery, ("fingerprint",))
    assert len(said) == 1
    assert said[0].startswith("fingerprint: the SAE was trained on model 'another'")
    assert sum("is overridden" in message for message in messages) == 1


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"d_in": 16}, SAEError, "d_in=16 but the model has d_model=32"),
        ({"hook": "blocks.9.hook_resid_post"}, SAEError, "layer 9 does not exist"),
        ({"hook": ""}, SAEError, "does not say which hook"),
    ],
)
def test_width_and_place_are_never_overridden(
    stage, settings, error, message, llama, found, battery
):
    sae = make_sae(**{"fingerprint": None, **settings})
    with pytest.raises(error, match=message):
        stage(llama, sae, found, battery, ("fingerprint", "hook"))


@pytest.mark.parametrize("stage", STAGES)
def test_unknown_names_are_refused(stage, llama, found, battery):
    with pytest.raises(ConfigError, match="did you mean 'fingerprint'"):
        stage(llama, make_sae(), found, battery, ("fingerprints",))
    with pytest.raises(ConfigError, match="the width never can"):
        stage(llama, make_sae(), found, battery, ("width",))


@pytest.mark.parametrize("stage", STAGES)
def test_what_fits_leaves_no_note(stage, llama, found, battery):
    sae = make_sae(fingerprint=llama.fingerprint)
    assert stage(llama, sae, found, battery, ()) == []


def test_one_name_need_not_be_a_list(llama):
    assert len(require_fit(make_sae(), llama, allow="fingerprint")) == 1
    with pytest.raises(ConfigError):
        require_fit(make_sae(), llama, allow="finger")


def test_the_store_is_asked_too(llama):
    sae = make_sae(fingerprint=llama.fingerprint)
    assert require_fit(sae, llama, store=store(fingerprint=llama.fingerprint)) == []
    with pytest.raises(SAEError, match="fingerprint"):
        require_fit(sae, llama, store=store(fingerprint=OTHER))
    with pytest.raises(SAEError, match="d_model=16"):
        require_fit(sae, llama, store=store(d_model=16), allow=["fingerprint", "hook"])
    with pytest.raises(SAEError, match=r"the store holds blocks\.3"):
        require_fit(sae, llama, store=store(["blocks.3.hook_resid_post"]))
    said = require_fit(sae, llama, store=store(["blocks.3.hook_resid_post"]), allow=["hook"])
    assert len(said) == 1
    assert said[0].startswith("hook: the SAE belongs at 'blocks.1.hook_resid_post'")


def test_a_store_of_another_model_is_refused_also_if_the_sae_names_none(llama):
    sae = make_sae(fingerprint=None)
    assert require_fit(sae, llama, store=store(fingerprint=llama.fingerprint)) == []
    with pytest.raises(SAEError, match=r"store was made by a model with fingerprint 000000000000"):
        require_fit(sae, llama, store=store(fingerprint=OTHER))
    said = require_fit(sae, llama, store=store(fingerprint=OTHER), allow=["fingerprint"])
    assert [name.split(":")[0] for name in said] == ["fingerprint"]


def test_one_place_has_two_names(llama):
    sae = make_sae(hook="blocks.2.hook_resid_pre", fingerprint=None)
    assert stored_hook(sae, store()) == HOOK
    assert require_fit(sae, llama, store=store()) == []
    two = store(["blocks.0.hook_resid_post", "blocks.3.hook_resid_post"])
    with pytest.raises(SAEError):
        stored_hook(sae, two, allow=["hook"])


def test_records_keep_what_was_overridden(llama, found, battery, tmp_path):
    sae, allow = make_sae(), ["fingerprint"]
    found.write(tmp_path)
    assert SearchSummary.read(tmp_path).misfits == found.summary.misfits != []
    config = InterveneConfig(n_random_sets=1, n_permutations=100, interventions=("ablate_zero",))
    chosen = found.top("all", 1)
    intervene(
        llama, sae, chosen, battery, config, out=tmp_path, quiet=True, allow_misfit=allow
    )  # fmt: skip
    assert len(EffectsSummary.read(tmp_path).misfits) == 1
    steer(
        llama, sae, chosen, SteerConfig(max_new_tokens=1), out=tmp_path, allow_misfit=allow,
        quiet=True,
    )  # fmt: skip
    assert all(len(row.misfits) == 1 for row in read_generations(tmp_path))


def test_records_of_before_are_still_read(found, tmp_path):
    path = found.write(tmp_path)
    payload = json.loads(path.read_text())
    del payload["misfits"]
    path.write_text(json.dumps(payload))
    assert SearchSummary.read(tmp_path).misfits == []
