"""`affectlens sae check`: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sae_lens
import torch

import affectlens as al
from affectlens.training.check import SAECheck

Cli = Callable[..., Any]
HOOK = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def study(inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Activations and an SAE of the tiny llama."""
    folder = tmp_path_factory.mktemp("check")
    lm = al.load_model(inputs.model)
    store = al.harvest(
        lm, str(inputs.corpus), layer=2, out=folder / "acts", context_length=64, quiet=True
    )
    al.train(
        store, out=folder / "sae", d_sae=64, k=8, n_samples=8_000, batch_size=256, quiet=True
    )  # fmt: skip
    return folder


def write_broken(folder: Path, out: Path, change: Callable[[Any], None]) -> Path:
    raw = sae_lens.SAE.load_from_disk(folder / "sae")
    change(raw)
    raw.cfg.metadata.integrity = None
    raw.save_model(out)
    return out


def test_a_sound_sae(study: Path, cli: Cli, tmp_path: Path) -> None:
    words = ["sae", "check", study / "sae", "--store", study / "acts", "--model", "tiny:llama"]
    result = cli(*words, "--limit", "300", "--out", tmp_path / "check.json")
    assert result.code == 0, result.err
    for name in ("FVU", "L0", "silent latents", "loss recovered (mean)", "fingerprint", "centring"):
        assert name in result.out
    read = SAECheck.read(tmp_path / "check.json")
    assert read.line("fingerprint").verdict == "ok"
    assert read.verdict != "misfit"
    assert read.summary in result.out


def test_json_is_the_same_record(study: Path, cli: Cli, tmp_path: Path) -> None:
    words = ["sae", "check", study / "sae", "--store", study / "acts"]
    out = tmp_path / "check.json"
    said = cli(*words, "--json", "--out", out).json
    written = json.loads(out.read_text(encoding="utf-8"))
    assert {k: v for k, v in written.items() if k != "format_version"} == {
        k: v for k, v in said.items() if k != "store"
    }
    assert said["verdict"] in ("fits", "usable with care")


def test_a_misfit_ends_with_3_and_is_still_written(study: Path, cli: Cli, tmp_path: Path) -> None:
    words = ["sae", "check", study / "sae", "--store", study / "acts", "--out", tmp_path / "c.json"]
    result = cli(*words, "--model", "tiny:gpt2")
    assert result.code == 3
    assert "fail: fingerprint" in result.out
    assert "Misfit." in result.out
    assert SAECheck.read(tmp_path / "c.json").verdict == "misfit"


def test_a_swapped_decoder_is_a_misfit(study: Path, cli: Cli, tmp_path: Path) -> None:
    def roll(raw: Any) -> None:
        raw.W_dec.data = raw.W_dec.data.roll(7, 0)

    broken = write_broken(study, tmp_path / "sae", roll)
    result = cli("sae", "check", broken, "--store", study / "acts")
    assert result.code == 3
    assert "fail: FVU" in result.out


def test_strict_wants_more_than_nothing_wrong(study: Path, cli: Cli) -> None:
    assert cli("sae", "check", study / "sae").code == 0
    strict = cli("sae", "check", study / "sae", "--strict")
    assert strict.code == 3
    assert "nothing was measured" in strict.out


def test_the_model_alone_gives_a_verdict(study: Path, cli: Cli) -> None:
    result = cli("sae", "check", study / "sae", "--model", "tiny:llama", "--limit", "300", "--json")
    assert "corpus 'default'" in result.json["measured_on"]
    assert any(line["name"] == "FVU" for line in result.json["lines"])
    assert result.code == (3 if result.json["verdict"] == "misfit" else 0)


def test_nulls_stand_beside_it(study: Path, inputs: Any, cli: Cli) -> None:
    words = ["sae", "check", study / "sae", "--store", study / "acts", "--model", "tiny:llama"]
    words += ["--null", "random-model,embedding", "--null-samples", "500", "--limit", "300"]
    words += ["--corpus", inputs.corpus]
    result = cli(*words)
    assert result.code == 0, result.out
    for name in ("this SAE", "same budget", "random-model", "embedding", "not comparable"):
        assert name in result.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--null", "random"], "unknown null 'random'; known: random-model, embedding"),
        (["--null", "embedding"], "give --model"),
        (["--null-samples", "0"], "--null-samples"),
    ],
)
def test_bad_options_are_refused(study: Path, cli: Cli, words: list[str], message: str) -> None:
    result = cli("sae", "check", study / "sae", *words)
    assert result.code == 2
    assert message in result.err


def test_from_python(study: Path, inputs: Any) -> None:
    lm, sae = al.load_model("tiny:llama"), al.load_sae(study / "sae")
    store = al.ActivationStore.open(study / "acts")
    more = {"nulls": ["embedding"], "null_samples": 500, "quiet": True}
    found = al.sae_check(sae, lm=lm, store=store, corpus=str(inputs.corpus), **more)
    assert [null.kind for null in found.nulls] == ["same budget", "embedding"]
    assert found.line("null: embedding").verdict in ("ok", "warn")
    with pytest.raises(al.AffectLensError, match="give lm"):
        al.sae_check(sae, store=store, nulls=["embedding"])
    assert torch.isfinite(torch.tensor(found.nulls[1].fvu))


@pytest.mark.parametrize("verb", ["search", "intervene", "steer"])
def test_stages_know_the_override(verb: str, cli: Cli, tmp_path: Path) -> None:
    result = cli(verb, tmp_path, "--allow-misfit", "width")
    assert result.code == 2
    assert "known: fingerprint, hook" in result.err
    assert "the width never can" in result.err


def test_a_run_takes_the_override_as_a_setting(cli: Cli, inputs: Any) -> None:
    plan = cli("run", "--config", inputs.config, "--dry-run", "--json")
    assert plan.json["config"]["allow_misfit"] == []
    words = ["run", "--config", inputs.config, "--dry-run", "--json"]
    plan = cli(*words, "--allow-misfit", "fingerprint")
    assert plan.json["config"]["allow_misfit"] == ["fingerprint"]
    assert cli(*words, "--allow-misfit", "width").code == 2


@pytest.mark.parametrize(
    ("stage", "place"),
    [
        ("_search", "affectlens.features.search.search"),
        ("_intervene", "affectlens.features.effects.intervene"),
        ("_steer", "affectlens.features.steering.steer"),
    ],
)
def test_every_stage_of_a_run_is_given_the_override(
    stage: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectlens import steps
    from affectlens.run_config import RunConfig
    from affectlens.run_state import Run

    seen: list[Any] = []

    def stand_in(*_: Any, **more: Any) -> Any:
        seen.append(more["allow_misfit"])
        return SimpleNamespace(write=lambda _: None)

    monkeypatch.setattr(place, stand_in)
    monkeypatch.setattr("affectlens.features.readout_check.check_readout", lambda *_, **__: None)
    (tmp_path / "battery").mkdir()
    (tmp_path / "battery/audit.json").write_text('{"warning": ""}')
    keys = {}
    for allowed in ((), ("fingerprint",)):
        run = Run(RunConfig(allow_misfit=allowed, skip=("screen",)), tmp_path, quiet=True)
        run.__dict__ |= {"lm": None, "sae": None, "battery": None, "store": None}
        run.keys |= dict.fromkeys(("audit", "train", "check", "search"), "k")
        run.__dict__["chosen"] = list
        run.__dict__["stage"] = lambda name, key, _: keys.update({allowed: key}) or nullcontext(1)  # noqa: B023
        getattr(steps, stage)(run)
        assert ("allow_misfit" in keys[allowed]) is bool(allowed)
    assert seen == [(), ("fingerprint",)]
