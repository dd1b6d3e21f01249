"""Synthetic runs for the report tests; synthetic_run.py makes them up."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from affectlens.report.loading import RunData, load_run

CAUSAL_STAGES = ("run", "sae", "search", "effects", "screen", "mediation", "study")

# Tests are no package (importlib mode), so helpers beside them need their folder on the path.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    return importlib.import_module("synthetic_run")


@pytest.fixture(scope="session")
def positive_run(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_run(tmp_path_factory.mktemp("run") / "positive")


@pytest.fixture(scope="session")
def positive(positive_run: Path) -> RunData:
    return load_run(positive_run)


@pytest.fixture(scope="session")
def validated_run(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the stages that follow the search: reads, controls and baselines."""
    stages = ("run", "sae", "search", "reads", "controls", "baselines", "effects")
    settings = synthetic.Settings(n_tested=200, stages=stages)
    return synthetic.write_run(tmp_path_factory.mktemp("run") / "validated", settings)


@pytest.fixture(scope="session")
def validated(validated_run: Path) -> RunData:
    return load_run(validated_run)


@pytest.fixture(scope="session")
def null(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> RunData:
    settings = synthetic.Settings(positive=False)
    return load_run(synthetic.write_run(tmp_path_factory.mktemp("run") / "null", settings))


@pytest.fixture(scope="session")
def hostile_run(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    stages = ("run", "sae", "search", "reads", "controls", "baselines", "effects")
    settings = synthetic.Settings(hostile=True, stages=stages)
    return synthetic.write_run(tmp_path_factory.mktemp("run") / "hostile", settings)


@pytest.fixture(scope="session")
def causal_run(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the screen, the interventions with mediation, and the steering study."""
    settings = synthetic.Settings(n_tested=200, stages=CAUSAL_STAGES)
    return synthetic.write_run(tmp_path_factory.mktemp("run") / "causal", settings)


@pytest.fixture(scope="session")
def causal(causal_run: Path) -> RunData:
    return load_run(causal_run)


@pytest.fixture(scope="session")
def causal_null(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> RunData:
    settings = synthetic.Settings(n_tested=200, positive=False, stages=CAUSAL_STAGES)
    return load_run(synthetic.write_run(tmp_path_factory.mktemp("run") / "nothing", settings))
