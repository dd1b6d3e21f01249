"""Where the numbers go: JSON lines always, TensorBoard and wandb by stand-ins for their modules."""

import json
import sys
import types
from typing import ClassVar

import pytest

from affectlens.data.errors import ConfigError
from affectlens.training.config import WatchConfig
from affectlens.training.trackers import LinesTracker, open_tracker, read_lines
from affectlens.training.trainer import train

POINT = {"step": 4, "n_samples": 64, "fvu": 0.5, "note": "text"}


def opened(kind, folder, step=0):
    return open_tracker(
        kind, folder, name="sae", run_id="0123", step=step, settings={"d_sae": 4, "k": 2}
    )


def test_lines_are_appended_and_later_ones_dropped_on_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tracker = LinesTracker(path, 0)
    for step in (1, 2, 3):
        tracker.log({"step": step, "fvu": 1 / step})
    with path.open("a") as handle:
        handle.write('{"step": 4, "fv')
    LinesTracker(path, 2).log({"step": 3, "fvu": 0.25})
    assert [line["step"] for line in read_lines(path)] == [1, 2, 3]
    assert read_lines(path)[-1] == {"step": 3, "fvu": 0.25}
    LinesTracker(path, 0)
    assert path.read_text() == ""


def test_none_is_none(tmp_path):
    assert opened("none", tmp_path) is None


@pytest.mark.parametrize(
    ("kind", "module"), [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard")]
)
def test_a_package_that_is_absent(monkeypatch, tmp_path, kind, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"watch.tracker is '{kind}'.*pip install {kind}"):
        opened(kind, tmp_path / "t")
    assert not (tmp_path / "t").exists()


class FakeRun:
    def __init__(self, **options):
        self.options, self.points, self.finished = options, [], False

    def log(self, point, step):
        self.points.append((step, point))

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    module = types.ModuleType("wandb")
    module.runs = []

    def init(**options):
        module.runs.append(FakeRun(**options))
        return module.runs[-1]

    module.init = init
    module.Error = type("Error", (Exception,), {})
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


class FakeWriter:
    made: ClassVar[list] = []

    def __init__(self, **options):
        self.options, self.scalars, self.closed = options, [], False
        FakeWriter.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def close(self):
        self.closed = True


@pytest.fixture
def tensorboard(monkeypatch):
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter
    FakeWriter.made = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return FakeWriter.made


def test_wandb_gets_settings_and_points(wandb, tmp_path):
    tracker = opened("wandb", tmp_path / "t")
    tracker.log(POINT)
    tracker.close()
    (run,) = wandb.runs
    assert run.options["config"] == {"d_sae": 4, "k": 2}
    assert (run.options["id"], run.options["resume"]) == ("0123", "allow")
    # The mode is the user's, by wandb's own variable.
    assert "mode" not in run.options
    assert run.points == [(4, POINT)]
    assert run.finished


def test_wandb_that_cannot_start(wandb, tmp_path):
    def refused(**_):
        raise wandb.Error("no API key")

    wandb.init = refused
    with pytest.raises(ConfigError, match=r"cannot start a run \(no API key\).*WANDB_MODE"):
        opened("wandb", tmp_path / "t")


def test_tensorboard_gets_scalars_and_forgets_what_is_done_again(tensorboard, tmp_path):
    tracker = opened("tensorboard", tmp_path / "t", step=7)
    tracker.log(POINT)
    tracker.close()
    (writer,) = tensorboard
    assert writer.options == {"log_dir": str(tmp_path / "t"), "purge_step": 8}
    assert writer.scalars == [("train/n_samples", 64, 4), ("train/fvu", 0.5, 4)]
    assert writer.closed


def test_a_training_tells_its_tracker_what_it_writes(wandb, store, config, tmp_path):
    watch = WatchConfig(tracker="wandb", n_evals=3)
    short = config.model_copy(update={"n_samples": 2048, "watch": watch})
    train(store, short, tmp_path / "sae", quiet=True)
    lines = [json.loads(x) for x in (tmp_path / "sae/metrics.jsonl").read_text().splitlines()]
    (run,) = wandb.runs
    assert [point for _, point in run.points] == lines[:-1]
    assert [step for step, _ in run.points] == [line["step"] for line in lines[:-1]]
    assert run.finished
    assert run.options["config"]["watch"]["tracker"] == "wandb"
    # Another tracker makes no other run.
    plain = short.model_copy(update={"watch": WatchConfig(n_evals=3)})
    train(store, plain, tmp_path / "sae", quiet=True)


def test_a_tracker_is_closed_when_training_fails(wandb, store, config, tmp_path, monkeypatch):
    monkeypatch.setattr("affectlens.training.loop.train_step", lambda *a: 1 / 0)
    short = config.model_copy(update={"watch": WatchConfig(tracker="wandb")})
    with pytest.raises(ZeroDivisionError):
        train(store, short, tmp_path / "sae", quiet=True)
    assert wandb.runs[0].finished


def test_no_tracker_is_imported_unasked(store, config, tmp_path, monkeypatch):
    module = "torch.utils.tensorboard"
    # What an earlier test has imported must not hide a new import; importing None fails.
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    short = config.model_copy(update={"n_samples": 512})
    train(store, short, tmp_path / "sae", quiet=True)
    assert sys.modules[module] is sys.modules["wandb"] is None
