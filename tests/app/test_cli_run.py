"""`affectlens run` from texts to report on a tiny model: whole, again, interrupted, in stages."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from affectlens.data.artifacts import folder_lock
from affectlens.pipeline import WRITTEN_HERE

Cli = Callable[..., Any]
Spawn = Callable[..., subprocess.Popen[str]]
STAGES = ["audit", "harvest", "train", "check", "search", "screen", "controls", "validity"]
STAGES += ["baselines"]
STAGES += ["naming", "intervene", "steer", "study", "report"]
SAME = [
    "search/features.csv",
    "search/controls.csv",
    "validity/tests.csv",
    "naming/names.csv",
    "effects/effects.csv",
    "effects/generations.jsonl",
    "steering/texts.csv",
    "steering/ranking.csv",
]
LONG = ["--set", "train.n_samples=50000000"]


@pytest.fixture(scope="module")
def whole(inputs: Any, spawn: Spawn, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that was not disturbed: its folder, answer and seconds of processor time."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = spawn("run", "--config", inputs.config, "--out", folder, "--json")
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return folder, json.loads(out), spent


def test_a_run_from_texts_to_report(whole: Any) -> None:
    folder, answer, seconds = whole
    # Processor time, so that whatever else the machine does cannot fail this test.
    assert seconds < 60
    assert answer["report"] == str(folder / "report.html")
    assert (folder / "report.html").stat().st_size > 10_000
    assert len(answer["findings"]) == 6
    assert list(answer["stages"]) == STAGES
    assert not any(s["reused"] for s in answer["stages"].values())
    for name in ("config.yaml", "run.json", "sae/cfg.json", "search/features.parquet", *SAME):
        assert (folder / name).is_file()
    assert not list(folder.rglob(".staged-*"))


def test_the_same_command_again_reuses_everything(whole: Any, inputs: Any, cli: Cli) -> None:
    folder, _, _ = whole
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.parquet")}
    planned = cli("run", "--config", inputs.config, "--out", folder, "--dry-run", "--json").json
    assert all(stage["reused"] for stage in planned["stages"].values())
    result = cli("run", "--config", inputs.config, "--out", folder)
    assert result.code == 0
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines[2 : 2 + len(STAGES)]] == STAGES
    assert all(line.endswith("yes") for line in lines[2 : 2 + len(STAGES)])
    assert lines[-1] == f"report: {folder / 'report.html'}"
    assert {line[:2] for line in lines} >= {"1.", "2.", "3."}
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.parquet")} == before


def test_what_changes_is_planned_with_what_depends_on_it(whole: Any, inputs: Any, cli: Cli) -> None:
    folder, _, _ = whole
    words = ["run", "--config", inputs.config, "--out", folder, "--set", "search.alpha=0.1"]
    planned = cli(*words, "--dry-run", "--json").json["stages"]
    assert [name for name in STAGES if planned[name]["reused"]] == [
        *("audit", "harvest", "train", "check")
    ]
    refused = cli(*words)
    assert refused.code == 2
    assert "made with other settings (search.alpha)" in refused.err
    assert "--overwrite" in refused.err


def test_another_screen_costs_a_run_no_more_than_its_own(
    whole: Any, inputs: Any, cli: Cli, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    table = folder / "search/screen.csv"
    before = pd.read_csv(table)
    assert cli("screen", folder, "--n-top", "5", "--max-pairs", "2").code == 0
    assert not pd.read_csv(table).equals(before)
    again = cli("run", "--config", inputs.config, "--out", folder, "--json").json["stages"]
    # The report is made again only if the last digit of some number is another.
    assert [n for n in STAGES if not again[n]["reused"] and n != "report"] == ["screen"]
    pd.testing.assert_frame_equal(pd.read_csv(table), before, rtol=1e-5, atol=1e-7)
    assert (folder / "steering/ranking.csv").is_file()


def test_two_runs_in_one_folder(whole: Any, inputs: Any, cli: Cli) -> None:
    folder, _, _ = whole
    with folder_lock(folder):
        result = cli("run", "--config", inputs.config, "--out", folder)
    assert result.code == 4
    assert "is being written by another run" in result.err


def test_stages_one_by_one(whole: Any, inputs: Any, cli: Cli, tmp_path: Path) -> None:
    folder, _, _ = whole
    run = tmp_path / "run"
    small = ["--model", inputs.model, "--json", "--quiet"]
    harvested = cli(
        *("harvest", "--corpus", inputs.corpus, "--avoid", inputs.battery),
        *("--out", run / "activations", "--layers", "2", "--context-length", "64", *small),
        *("--tokens-per-shard", "1024"),
    ).json
    assert harvested["n_rows"] > 1000
    trained = cli(
        *("train", run / "activations", "--out", run / "sae", "--d-sae", "64", "--k", "8"),
        *("--n-samples", "10000", "--batch-size", "256", "--n-eval-rows", "500", *small),
    ).json
    assert 0 < trained["metrics"]["fvu"] < 1
    assert (run / "sae/sae_weights.safetensors").read_bytes() == (
        folder / "sae/sae_weights.safetensors"
    ).read_bytes()
    searched = cli(
        *("search", run, "--battery", inputs.battery, *small),
        *("--n-permutations", "200", "--min-items", "2", "--no-controls", "--no-screen"),
    ).json
    assert searched["controls"] is None
    assert searched["summary"]["n_tested"] > 0
    screened = cli(
        *("screen", run, "--max-pairs", "4", "--n-top", "3", "--n-random", "4"),
        *("--n-prefixes", "2", "--battery", inputs.battery, *small),
    ).json
    assert screened["summary"]["n_measured"]
    assert (run / SAME[0]).read_bytes() == (folder / SAME[0]).read_bytes()
    effects = cli(
        *("intervene", run, "--battery", inputs.battery, "--interventions", "ablate_zero"),
        *("--n-random-sets", "2", "--n-permutations", "100"),
        *("--features-per-emotion", "2", "--limit", "16", *small),
    ).json
    assert {row["intervention"] for row in effects["verdicts"]} == {"ablate_zero"}
    steered = cli(
        *("steer", run, "--emotion", "all", "--prompts", "The cart stood, as ever,"),
        *("--max-new-tokens", "3", "--strengths", "0.5,1", *small),
    ).json
    assert [row["strength"] for row in steered["generations"]] == [0, 0.5, 1]
    assert len(cli("report", run, "--json").json["findings"]) == 5


def test_sae_convert(whole: Any, cli: Cli, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    source = tmp_path / "layers.1"
    source.mkdir()
    generator = torch.Generator().manual_seed(0)
    shapes = {"encoder.weight": (16, 8), "encoder.bias": (16,), "W_dec": (16, 8), "b_dec": (8,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, source / "sae.safetensors")
    (source / "cfg.json").write_text(json.dumps({"d_in": 8, "num_latents": 16, "k": 4}))
    made = cli("sae", "convert", source, tmp_path / "out", "--json").json
    assert (made["sae"]["d_in"], made["sae"]["d_sae"], made["sae"]["k"]) == (8, 16, 4)
    assert cli("sae", "check", tmp_path / "out").code == 0
    wrong = cli("sae", "convert", source, tmp_path / "x", "--hook", "layer 3")
    assert (wrong.code, "(--hook) is 'layer 3'" in wrong.err) == (2, True)
    misfit = cli("sae", "check", tmp_path / "out", "--model", "tiny:llama")
    assert misfit.code == 3
    assert "d_in 8" in misfit.out
    assert "the residual has 32 entries" in misfit.out


def _wait_for(folder: Path, stage: str, process: subprocess.Popen[str]) -> None:
    """Return as soon as the run's log says that the stage has begun."""
    mark = f'"stage": "{stage}", "event": "started"'
    log = folder / "log.jsonl"
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if log.exists() and mark in log.read_text(encoding="utf-8"):
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"{stage} did not start: {process.communicate()[1]}")


def _before(whole: Path, folder: Path, stage: str) -> None:
    """A run folder as it was when `stage` was about to start."""
    shutil.copytree(whole, folder)
    (folder / "log.jsonl").unlink()
    for name in STAGES[STAGES.index(stage) :]:
        (folder / f"stages/{name}.json").unlink()
    for name in {"harvest": ["activations", "sae"], "train": ["sae"]}.get(stage, []):
        shutil.rmtree(folder / name)


@pytest.mark.parametrize(
    ("stage", "delay"),
    [
        ("harvest", 1.0),
        ("train", 0.3),
        ("search", 0.1),
        ("screen", 0.1),
        ("controls", 0.5),
        ("validity", 0.1),
        ("baselines", 0.3),
        ("naming", 0.1),
        ("intervene", 0.2),
        ("steer", 0.1),
        ("study", 0.1),
        ("report", 0.3),
    ],
)
def test_kill_9_and_the_same_command_finishes(
    whole: Any, inputs: Any, spawn: Spawn, cli: Cli, tmp_path: Path, stage: str, delay: float
) -> None:
    _before(whole[0], tmp_path / "run", stage)
    words = ["run", "--config", inputs.config, "--out", tmp_path / "run"]
    process = spawn(*words)
    _wait_for(tmp_path / "run", stage, process)
    time.sleep(delay)
    process.kill()
    process.communicate()
    for name in ("", *WRITTEN_HERE):  # whatever it was writing at that moment
        (tmp_path / "run" / name).mkdir(exist_ok=True)
        (tmp_path / "run" / name / ".staged-1-half").write_text("half", encoding="utf-8")
    result = cli(*words, "--json")
    assert result.code == 0, result.err
    assert result.json["stages"]["audit"]["reused"]
    for name in SAME:
        assert (tmp_path / "run" / name).read_bytes() == (whole[0] / name).read_bytes()
    assert not list((tmp_path / "run").rglob(".staged-*"))


@pytest.mark.parametrize(
    ("sent", "code", "stage", "delay"),
    [
        (signal.SIGINT, 130, "harvest", 0.2),
        (signal.SIGINT, 130, "train", 2.0),
        (signal.SIGTERM, 143, "train", 2.0),
        (signal.SIGINT, 130, "search", 0.05),
        (signal.SIGTERM, 143, "search", 0.3),
        (signal.SIGINT, 130, "controls", 0.3),
        (signal.SIGTERM, 143, "baselines", 0.3),
        (signal.SIGINT, 130, "intervene", 0.2),
        (signal.SIGINT, 130, "steer", 0.1),
        (signal.SIGINT, 130, "report", 0.2),
    ],
)
def test_an_interrupt_ends_cleanly(
    whole: Any,
    inputs: Any,
    spawn: Spawn,
    tmp_path: Path,
    sent: signal.Signals,
    code: int,
    stage: str,
    delay: float,
) -> None:
    folder = tmp_path / "run"
    longer = LONG if stage == "train" else ()
    if not longer:
        _before(whole[0], folder, stage)
    process = spawn("run", "--config", inputs.config, "--out", folder, "--json", *longer)
    _wait_for(folder, stage, process)
    time.sleep(delay)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    # An interrupt that lands inside exec() (which dataclasses use while a module is imported) makes
    # CPython end by that signal although the command returned 130; a shell shows 130 for both.
    ended = {code, -sent} if sent == signal.SIGINT else {code}
    assert process.returncode in ended, err
    assert json.loads(out)["exit_code"] == code
    assert "Traceback" not in err
    with folder_lock(folder):
        assert not list(folder.rglob(".staged-*"))
