import subprocess
import sys

import pytest

from affectlens.data.errors import ConfigError
from affectlens.training.config import TrainConfig


def test_small_described_and_frozen():
    assert len(TrainConfig.model_fields) <= 15
    assert all(f.description for f in TrainConfig.model_fields.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_sea": 4}, "did you mean 'd_sae'"),
        ({"lr": 0}, "lr"),
        ({"arch": "relu"}, "topk"),
        ({"k": 2.5}, "k"),
        ({"seed": -1}, "seed"),
    ],
)
def test_refused_values(values, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.parse(values)


def test_importing_it_does_not_import_torch():
    code = "import sys, affectlens.training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
