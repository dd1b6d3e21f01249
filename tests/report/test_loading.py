import json
from pathlib import Path
from types import ModuleType

import pytest

from affectlens.data.errors import ArtifactError
from affectlens.report.loading import CONFIG_LIMIT, load_run


def test_everything_is_read(positive_run: Path) -> None:
    data = load_run(positive_run)
    assert data.summary is not None and data.metrics is not None and data.verdicts is not None
    assert data.lookup("model", "name") == "smollm2-135m-instruct"
    assert len(data.contexts) > 0 and len(data.generations) == 6


def test_missing_values_read_as_not_recorded(positive_run: Path) -> None:
    data = load_run(positive_run)
    assert data.lookup("model", "revision") == "not recorded"
    assert data.lookup("nothing", "here") == "not recorded"
    assert data.lookup("created", "deeper") == "not recorded"


@pytest.mark.parametrize("stage", ["run", "sae", "search", "effects"])
def test_one_stage_alone_is_a_run(synthetic: ModuleType, tmp_path: Path, stage: str) -> None:
    run = synthetic.write_run(tmp_path / "r", synthetic.Settings(stages=(stage,), n_tested=40))
    data = load_run(run)
    assert (data.summary is not None) == (stage == "search")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a folder"):
        load_run(tmp_path / "none")


def test_broken_files_are_errors_not_gaps(synthetic: ModuleType, tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "r", synthetic.Settings(n_tested=40))
    (run / "effects/verdicts.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(ArtifactError, match=r"verdicts\.parquet cannot be read"):
        load_run(run)


def test_newer_format_is_refused(synthetic: ModuleType, tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "r", synthetic.Settings(stages=("sae",)))
    path = run / "sae/metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    with pytest.raises(ArtifactError, match="format version 99"):
        load_run(run)


def test_run_json_must_be_an_object(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(ArtifactError, match="not a JSON object"):
        load_run(tmp_path)


def test_a_huge_config_is_cut_and_says_so(synthetic: ModuleType, tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "r", synthetic.Settings(stages=("run",)))
    (run / "config.yaml").write_text("x" * (CONFIG_LIMIT + 7))
    assert load_run(run).config_text.endswith("7 more characters in config.yaml")
