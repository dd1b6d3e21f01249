"""The command line without a run: help, options, errors and the commands that load no model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic.fields import FieldInfo

from affectlens import cli_options, cli_run, doctor
from affectlens.cli import build_app
from affectlens.cli_options import config_options, given, parse_change
from affectlens.data.config import HarvestConfig, StageConfig
from affectlens.data.errors import ConfigError
from affectlens.features.config import SearchConfig
from affectlens.features.effects_config import InterveneConfig, SteerConfig
from affectlens.training.config import TrainConfig

Cli = Callable[..., Any]

VERBS = [
    ["run"],
    ["model", "list"],
    ["model", "fetch"],
    ["battery", "list"],
    ["battery", "show"],
    ["battery", "export"],
    ["battery", "validate"],
    ["battery", "audit"],
    ["battery", "defend"],
    ["battery", "rate"],
    ["harvest"],
    ["train"],
    ["sae", "check"],
    ["sae", "convert"],
    ["search"],
    ["screen"],
    ["controls"],
    ["validity"],
    ["baselines"],
    ["name"],
    ["calibrate"],
    ["nulls"],
    ["compare"],
    ["export"],
    ["intervene"],
    ["steer"],
    ["report"],
    ["doctor"],
    ["demo"],
]
GLOBAL = ["--quiet", "--verbose", "--json", "--seed", "--device", "--limit"]


def _commands(group: Any, path: tuple[str, ...] = ()) -> list[list[str]]:
    found = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += _commands(command, (*path, name))
        else:
            found.append([*path, name])
    return found


def test_the_verbs_are_exactly_these() -> None:
    assert sorted(_commands(typer.main.get_command(build_app()))) == sorted(VERBS)


@pytest.mark.parametrize("words", [[], ["model"], ["battery"], ["sae"], *VERBS], ids=" ".join)
def test_help_has_examples_and_global_options(cli: Cli, words: list[str]) -> None:
    result = cli(*words, "--help")
    assert result.code == 0
    assert "Examples:\n    affectlens" in result.out
    if words in VERBS:
        assert all(option in result.out for option in GLOBAL)


@pytest.mark.parametrize("words", [[], ["model"], ["battery"], ["sae"]], ids=" ".join)
def test_a_group_alone_shows_its_help(cli: Cli, words: list[str]) -> None:
    result = cli(*words)
    assert result.code == 0
    assert "Commands:" in result.out


def test_version(cli: Cli) -> None:
    from affectlens import __version__

    assert cli("--version").out == f"affectlens {__version__}\n"


def test_help_and_bad_arguments_do_not_import_torch() -> None:
    calls = [
        ["--help"],
        ["train", "--help"],
        ["nonsense"],
        ["run", "--set", "train.kk=3"],
        ["run", "--config", "absent.yaml"],
        ["run", "--dry-run", "--corpus", "absent.txt"],
        ["harvest", "--out", "x", "--layers", "one"],
        ["search", "x", "--n-permutations", "3"],
        ["battery", "list"],
    ]
    code = f"""
import sys
from affectlens.cli import main
for words in {calls!r}:
    try:
        main(words)
    except SystemExit:
        pass
heavy = {{"torch", "transformers", "sae_lens", "pandas", "scipy", "numba"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize(
    "config", [HarvestConfig, TrainConfig, SearchConfig, InterveneConfig, SteerConfig]
)
def test_every_config_field_is_an_option(config: type[StageConfig], cli: Cli) -> None:
    verb = config.__name__.removesuffix("Config").lower()
    shown = " ".join(cli(verb, "--help").out.split())
    for name, field in _plain_fields(config).items():
        # `steer` takes these as --emotion and --features, like its neighbours.
        if verb == "steer" and name in ("emotions", "features_per_emotion"):
            continue
        assert f"--{name.replace('_', '-')}" in shown
        if name != "seed":
            assert str(field.description).split()[0] in shown


def _plain_fields(config: type[StageConfig]) -> dict[str, FieldInfo]:
    """The fields of a config, those of its parts in place of the parts."""
    plain: dict[str, FieldInfo] = {}
    for name, field in config.model_fields.items():
        kind = field.annotation
        part = isinstance(kind, type) and issubclass(kind, StageConfig)
        plain = {**_plain_fields(kind), **plain} if part else {**plain, name: field}
    return plain


def test_options_of_a_part_come_back_as_a_part() -> None:
    options = {p.name for p in config_options(TrainConfig)}
    assert {"watch__patience", "sparsity__l1_coefficient", "k"} <= options
    assert not {"watch", "sparsity"} & options
    values = {"watch__patience": 3, "watch__tracker": None, "k": 4, "sparsity__bandwidth": 0.1}
    settings = given(TrainConfig, values)
    assert settings == {"watch": {"patience": 3}, "k": 4, "sparsity": {"bandwidth": 0.1}}
    assert TrainConfig.parse(settings).watch.patience == 3


def test_given_values_become_what_the_config_takes() -> None:
    options = {p.name for p in config_options(InterveneConfig)}
    assert set(InterveneConfig.model_fields) - {"controls", "measures"} < options
    assert {"controls__arms", "controls__doses", "measures__mediation"} < options
    values = {"interventions": ["clamp,scale", "ablate_zero"], "templates": ["One, two"]}
    settings = given(InterveneConfig, {**values, "alpha": None})
    assert settings["interventions"] == ("clamp", "scale", "ablate_zero")
    assert settings["templates"] == ("One, two",)
    assert "alpha" not in settings
    assert InterveneConfig.parse(settings).interventions == ("clamp", "scale", "ablate_zero")
    assert given(SteerConfig, {"strengths": ["0.5,2"]}) == {"strengths": ("0.5", "2")}


def test_precedence_is_flag_then_set_then_file_then_default(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("seed: 1\nmodel: file\ncorpus: file\ntrain: {k: 7, d_sae: 99}\n")
    common = cli_options.Common(
        quiet=False,
        verbose=False,
        seed=None,
        device=None,
        limit=500,
        console=cli_options.Console(),
    )
    config = cli_run.resolve(
        file, ["model=set", "corpus=set", "train.k=8"], {"model": "flag"}, common
    )
    assert (config.model, config.corpus, config.battery) == ("flag", "set", "affectlens-vignettes")
    assert (config.train.k, config.train.d_sae, config.train.seed) == (8, 99, 1)
    assert config.harvest.max_tokens == 500


def test_set_reads_yaml_values() -> None:
    assert parse_change("a.b=[1, 2]") == {"a": {"b": [1, 2]}}
    assert parse_change("x=null") == {"x": None}
    for bad in ("x", "=1", "a..b=1", "x=[1"):
        with pytest.raises(ConfigError, match="--set"):
            parse_change(bad)


def test_a_single_value_stands_for_a_list(cli: Cli) -> None:
    result = cli("run", "--dry-run", "--json", "--set", "harvest.layers=2", "--set", "seed=4")
    assert result.json["config"]["harvest"]["layers"] == [2]
    assert result.json["config"]["search"]["seed"] == 4


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "--set", "train.kk=3"], 2, "unknown config key 'train.kk'; did you mean 'k'?"),
        (["run", "--set", "harvst.layers=3"], 2, "'harvst'; did you mean 'harvest'?"),
        (["run", "--set", "train.k=many"], 2, "train.k: Input should be a valid integer"),
        (["run", "--set", "train=3"], 2, "train"),
        (
            ["run", "--set", "train.n_eval_rows=9"],
            2,
            "unknown config key 'train.n_eval_rows'; did you mean 'watch.n_eval_rows'?",
        ),
        (["train", "x", "--out", "x", "--k", "3,many"], 2, "--k 3,many: 'many' is not a whole"),
        (["train", "x", "--out", "x", "--d-sae", "-5"], 2, "--d-sae -5: -5 is below 0; it must be"),
        (["train", "x", "--out", "x", "--arch", "relu"], 2, "arch: Input should be 'topk'"),
        (["run", "--config", "absent.yaml"], 2, "no such config file: absent.yaml"),
        (["run", "--battery", "absent.jsonl"], 2, "no battery 'absent.jsonl'"),
        (["run", "--battery", "affectlens-vignetes"], 2, "did you mean 'affectlens-vignettes'?"),
        (["run", "--corpus", "absent.txt"], 2, "no corpus 'absent.txt'"),
        (["harvest"], 2, "Missing option '--out'"),
        (["harvest", "--out", "x", "--layer", "3"], 2, "--layers"),
        (["harvest", "--out", "x", "--storage", "float8"], 2, "float8"),
        (["train", "absent", "--out", "x"], 3, "absent holds no finished activation store"),
        (["search", "absent"], 3, "absent/sae does not exist"),
        (["intervene", "absent"], 3, "absent holds no search"),
        (["steer", "absent"], 3, "absent holds no search"),
        (["report", "absent"], 3, "absent is not a folder"),
        (["sae", "convert", "absent", "x"], 2, "no such file or folder: absent"),
        (["sae", "check", "absent"], 2, "'absent' is neither a folder nor a known release"),
        (
            ["sae", "check", "absent", "--out", "no/x.json"],
            2,
            "--out no/x.json: there is no folder",
        ),
        (["battery", "show", "--emotion", "greif"], 2, "did you mean 'grief'?"),
        (["battery", "export", "affectlens-vignettes", "no/x.csv"], 2, "no such folder"),
        (["battery", "audit", "--n-fold", "3"], 2, "--n-folds"),
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["run", "--limit", "0"], 2, "--limit"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input(
    cli: Cli,
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli(*words)
    assert (result.code, result.out) == (code, "")
    assert "error: " in result.err
    assert message in result.err
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []
    same = cli(*words, "--json")
    assert same.code == same.json["exit_code"] == code
    assert message in same.json["error"]


def test_a_broken_config_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    for text, message in [
        ("a: [1\nb: 2", "is not valid YAML: line 2"),
        ("- a", "not a list"),
        ("train:\n  kk: 3\n", "'train.kk'; did you mean 'k'?"),
    ]:
        file.write_text(text)
        result = cli("run", "--config", file)
        assert result.code == 2
        assert message in result.err


def test_an_empty_battery(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text("")
    for words in (["battery", "validate", file], ["run", "--battery", file, "--out", tmp_path]):
        result = cli(*words)
        assert result.code == 2
        assert "has no items" in result.err


def test_battery_commands(cli: Cli, tmp_path: Path) -> None:
    assert "affectlens-vignettes" in cli("battery", "list").out
    shown = cli("battery", "show", "--emotion", "grief", "--limit", "2", "--json").json
    assert (shown["n_pairs"], shown["emotions"]) == (2, ["grief"])
    table = tmp_path / "b.csv"
    assert cli("battery", "export", "affectlens-vignettes", table).code == 0
    assert cli("battery", "validate", table, "--json").json["valid"] is True
    assert "is valid: 192 pairs" in cli("battery", "validate", table).out


def test_battery_export_of_another_layout(cli: Cli, tmp_path: Path) -> None:
    source, out = tmp_path / "comments.csv", tmp_path / "items.jsonl"
    source.write_text("text,label\nThe bus came.,neutral\nWe won!,joy\nHm.,pride\n")
    words = ["battery", "export", source, out, "--layout", "labels", "--scheme", "goemotions"]
    made = cli(*words, "--json").json
    assert (made["n_items"], made["n_pairs"]) == (2, 0)
    assert [json.loads(x)["emotion"] for x in out.read_text().splitlines()] == [
        "neutral",
        "ecstasy",
    ]


def test_battery_validate_strict(cli: Cli, tmp_path: Path) -> None:
    assert cli("battery", "validate", "affectlens-isolexical", "--strict").code == 0
    result = cli("battery", "validate", "--profile", "balanced", "--strict", "affectlens-vignettes")
    assert result.code == 3
    assert "one_sided_word: " in result.out


def test_model_list(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFFECTLENS_CACHE", str(tmp_path / "cache"))
    models = {m["name"]: m for m in cli("model", "list", "--json").json["models"]}
    assert models["smollm2-135m-instruct"]["cached"] is False
    assert models["tiny:llama"]["cached"] is True


def test_model_fetch(cli: Cli) -> None:
    about = cli("model", "fetch", "tiny:llama", "--json").json
    assert (about["n_layers"], about["d_model"], about["kind"]) == (4, 32, "tiny")
    assert cli("model", "fetch", "tiny:lama").code == 2


def test_a_layer_outside_the_model(cli: Cli, tmp_path: Path) -> None:
    corpus = tmp_path / "text.txt"
    corpus.write_text("The cart rolled over the bridge. " * 30)
    out = tmp_path / "acts"
    words = ["--model", "tiny:llama", "--corpus", corpus, "--out", out, "--layers", "9"]
    result = cli("harvest", *words)
    assert result.code == 3
    assert "layer 9 does not exist: the model has 4 blocks" in result.err


def test_doctor(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    result = cli("doctor", "--json")
    checks = {c["name"]: c["status"] for c in result.json["checks"]}
    assert checks["smoke test"] == "ok"
    assert checks["torch"] == "ok"
    monkeypatch.setattr(doctor, "smoke_test", lambda: iter([doctor.Check("x", "fail", "broken")]))
    result = cli("doctor", "--json")
    assert (result.code, result.json["ok"]) == (4, False)
    assert "not ready: x" in result.err


def test_quick_doctor_names_a_package_outside_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: ["numpy>=99", "nosuchpackage>=1"])
    checks = {c.name: c for c in doctor.packages()}
    assert checks["numpy"].status == "fail"
    assert "tested range is >=99" in checks["numpy"].detail
    assert checks["nosuchpackage"].detail == "not installed; need >=1"
