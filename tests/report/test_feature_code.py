"""The code of a feature page runs as it stands, whatever the model is called."""

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sae_lens
import synthetic_effects
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import affectlens as al
from affectlens.data.models import LanguageModel
from affectlens.report.feature_code import Setup, clamp_code, literal, setup, steer_code
from affectlens.report.loading import RunData

HOOK = "blocks.2.hook_resid_post"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunData]:
    """A run folder with a small SAE of a tiny model; the working directory is that folder."""
    lm = al.load_model("tiny:llama")
    config = sae_lens.TopKSAEConfig(
        d_in=lm.d_model,
        d_sae=64,
        k=8,
        metadata=sae_lens.saes.sae.SAEMetadata(hook_name=HOOK, model_name=lm.name),
    )
    sae = sae_lens.TopKSAE(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    sae.save_model(tmp_path / "sae")
    monkeypatch.chdir(tmp_path)
    return RunData(path=tmp_path, config_text="model: tiny:llama\nrevision: null\n")


def executed(code: str, capsys: pytest.CaptureFixture[str]) -> str:
    exec(compile(code, "snippet", "exec"), {})
    return capsys.readouterr().out


@pytest.mark.parametrize("max_active", [27.2257, 30.0, 0.0, None, 1.23456e-5, 123456.0])
def test_clamp_code_runs(
    run: RunData, capsys: pytest.CaptureFixture[str], max_active: float | None
) -> None:
    assert executed(clamp_code(setup(run), 9, max_active), capsys).strip()


def test_the_clamp_holds_the_feature_at_its_largest_activation(
    run: RunData, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    clamped = al.clamped

    def spy(lm: LanguageModel, sae: object, values: dict[int, float], **named: object) -> object:
        seen.update(values)
        return clamped(lm, sae, values, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(al, "clamped", spy)
    executed(clamp_code(setup(run), 9, 27.2257), capsys)
    assert seen == {9: 27.23}


def test_steer_code_runs_and_changes_the_text(
    run: RunData, capsys: pytest.CaptureFixture[str]
) -> None:
    code = steer_code(setup(run), 9)
    written = executed(code, capsys)
    plain = executed(code.replace("(0.2,)", "(0.0,)"), capsys)
    assert "AddLatents((9,), (0.2,))" in code
    assert written.strip() and written != plain


def test_an_sae_elsewhere_is_left_to_the_reader(positive: RunData) -> None:
    code = clamp_code(setup(positive), 1, 2.0)
    assert 'al.load_sae("SAE")' in code
    ast.parse(code)


def test_the_model_is_the_one_of_the_settings(positive: RunData) -> None:
    told = replace(positive, config_text='model: org/name\nrevision: "abc"\n')
    assert setup(told).model == 'al.load_model("org/name", revision="abc")'
    assert setup(replace(told, config_text="")).model == 'al.load_model("smollm2-135m-instruct")'
    nothing = RunData(path=positive.path, config_text="model: [1, {")
    assert setup(nothing).model == 'al.load_model("MODEL")'
    listed = RunData(path=positive.path, config_text="- model")
    assert setup(listed).model == 'al.load_model("MODEL")'


@settings(deadline=None)  # a busy machine is no failure
@given(st.text() | st.just(synthetic_effects.HOSTILE) | st.just("a'b\"c\\"))
def test_any_name_is_a_string_of_one_line(name: str) -> None:
    made = literal(name)
    assert ast.literal_eval(made) == name
    assert made.isprintable()
    start = Setup(f"al.load_model({made})", 'al.load_sae("sae")')
    for code in (clamp_code(start, 3, 1.0), steer_code(start, 3)):
        called = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Call)]
        assert len(called) == 5 if "AddLatents" not in code else len(called) == 6
