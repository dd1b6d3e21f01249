"""Training from start to end on a device, interrupted and resumed, against the CPU's reference.

The same body runs with the backend that a GPU takes on the CPU, so that it is tried everywhere.
"""

import json

import pytest
import torch

from affectlens.training import loop
from affectlens.training.checkpoints import checkpoints
from affectlens.training.config import SPARSE_ARCHS, WatchConfig
from affectlens.training.trainer import train

ARCHS = (*SPARSE_ARCHS, "jumprelu", "standard", "gated")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return request.param


@pytest.mark.parametrize("arch", ARCHS)
def test_a_device_trains_and_resumes_as_the_cpu(store, config, tmp_path, monkeypatch, arch, device):
    watch = WatchConfig(checkpoint_every_samples=256, n_evals=4)
    changed = {"arch": arch, "n_samples": 5120, "lr": 1e-3, "watch": watch}
    reference = config.model_copy(update=changed | {"backend": "sae_lens"})
    backend = "auto" if device == "cuda" or arch not in SPARSE_ARCHS else "torch"
    settings = reference.model_copy(update={"backend": backend})
    expected = train(store, reference, tmp_path / "reference", quiet=True)
    whole = train(store, settings, tmp_path / "whole", quiet=True, device=device)
    original = loop.train_step

    def stop(*args):
        if args[2].step == 7:
            raise RuntimeError("power cut")
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop)
        with pytest.raises(RuntimeError, match="power cut"):
            train(store, settings, tmp_path / "parts", quiet=True, device=device)
    assert checkpoints(tmp_path / "parts.training")
    resumed = train(store, settings, tmp_path / "parts", quiet=True, device=device)
    assert {expected.W_dec.device.type, resumed.W_dec.device.type} == {"cpu"}
    if device == "cpu":
        assert resumed.fingerprint == whole.fingerprint
    wanted = json.loads((tmp_path / "reference/metrics.json").read_text())
    for sae, name in ((whole, "whole"), (resumed, "parts")):
        found = json.loads((tmp_path / name / "metrics.json").read_text())
        assert found["fvu"] == pytest.approx(wanted["fvu"], rel=0.01)
        assert found["l0"] == pytest.approx(wanted["l0"], rel=0.01)
        assert len(found["history"]) == len(wanted["history"]) == 4
        cosines = torch.nn.functional.cosine_similarity(sae.W_dec, expected.W_dec, dim=-1)
        assert float(cosines.min()) > 0.99
