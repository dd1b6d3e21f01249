import subprocess
import sys

import pytest
from pydantic import ValidationError

from affectlens.data.errors import ConfigError
from affectlens.training.config import SparsityConfig, TrainConfig, WatchConfig

PARTS = [TrainConfig, SparsityConfig, WatchConfig]


@pytest.mark.parametrize("part", PARTS)
def test_small_described_and_frozen(part):
    assert all(f.description for f in part.model_fields.values())
    # Fifteen plain fields; the parts have their own.
    assert len(part.model_fields) <= 15 + 2 * (part is TrainConfig)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(part(), next(iter(part.model_fields)), 1)


def test_names_of_the_parts_are_unique_as_they_share_one_command_line():
    names = [name for part in PARTS for name in part.model_fields]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_sea": 4}, "did you mean 'd_sae'"),
        ({"lr": 0}, "lr"),
        ({"arch": "relu"}, "topk"),
        ({"k": 2.5}, "k"),
        ({"seed": -1}, "seed"),
        ({"n_eval_rows": 5}, "'n_eval_rows'; did you mean 'watch.n_eval_rows'"),
        ({"checkpoint_every_s": 5}, "did you mean 'watch.checkpoint_every_s'"),
        ({"aux_loss_coefficient": 0}, "did you mean 'sparsity.aux_loss_coefficient'"),
        ({"watch": {"patence": 3}}, "'watch.patence'; did you mean 'patience'"),
        ({"watch": {"tracker": "mlflow"}}, "watch.tracker"),
        ({"buffer_share": 0}, "buffer_share"),
    ],
)
def test_refused_values(values, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.parse(values)


def test_importing_it_does_not_import_torch():
    code = "import sys, affectlens.training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
