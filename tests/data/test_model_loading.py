"""Model folders and the hub: what is loaded, what is refused, and why."""

import json
import shutil
from types import SimpleNamespace

import httpx
import pytest
import torch

from affectlens.data import model_loading
from affectlens.data.errors import ModelError
from affectlens.data.models import load_model
from affectlens.data.tiny import FAMILIES, tiny_model

TEXTS = ["The rain fell.", "She kept the letter in the drawer.", "No"]


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A tiny Llama as a folder in the Hugging Face layout."""
    folder = tmp_path_factory.mktemp("models") / "tiny-saved"
    made = tiny_model("llama")
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the saved folder that a test may damage."""
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_folder_gives_the_same_model(family, tmp_path):
    made = tiny_model(family)
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(
        loaded.forward_logits(loaded.encode(TEXTS)), made.forward_logits(made.encode(TEXTS))
    )
    assert loaded.source.kind == "folder"
    assert loaded.name == tmp_path.name
    assert loaded.tokenizer_sha256 == made.tokenizer_sha256


def test_folder_fingerprint_follows_config_and_weights(folder):
    original = load_model(folder).fingerprint
    assert load_model(folder, dtype="bfloat16").fingerprint == original
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_version": "9"}))
    assert load_model(folder).fingerprint == original
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert load_model(folder).fingerprint != original


def test_dtype(folder):
    assert load_model(folder, dtype="bfloat16").dtype == torch.bfloat16
    assert load_model("tiny:gpt2", dtype="bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "unknown dtype 'int8'; allowed: float32"),
        ({"device": "toaster"}, "device 'toaster' cannot be used"),
        ({"revision": "main"}, "hub models only"),
    ],
)
def test_bad_loading_settings(options, message):
    with pytest.raises(ModelError, match=message):
        load_model("tiny:llama", **options)


@pytest.mark.parametrize("name", ["smollm2", "no-such-model", "./nowhere/model", "a/b/c", ""])
def test_unknown_names(name):
    with pytest.raises(ModelError, match=r"no model|no config"):
        load_model(name)


def test_near_names_are_suggested():
    with pytest.raises(ModelError, match="did you mean 'smollm2-135m-instruct'"):
        load_model("SmolLM2-135M")


def test_a_file_that_is_no_gguf(tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(b"x")
    with pytest.raises(ModelError, match=r"not a \.gguf file"):
        load_model(file)
    file = tmp_path / "model.gguf"
    file.write_bytes(b"zip!")
    with pytest.raises(ModelError, match="does not begin with the bytes 'GGUF'"):
        load_model(file, cache_dir=tmp_path)


def test_folder_without_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(folder)


def test_folder_with_a_broken_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        load_model(folder)


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"no \*\.safetensors file"):
        load_model(folder)


def test_remote_code_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="could not be read"):
        load_model(folder)


def test_cut_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged or incomplete"):
        load_model(folder)


def test_missing_weights_are_not_made_up(folder):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing .*layers\.1\.mlp\.up_proj"):
        load_model(folder)


def test_encoder_decoders_are_refused(folder):
    (folder / "config.json").write_text(
        json.dumps({"model_type": "t5", "is_encoder_decoder": True})
    )
    with pytest.raises(ModelError, match="encoder-decoder"):
        load_model(folder)


# hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(saved, tmp_path, monkeypatch):
    """A hub with one model, reachable or not, in place of the real one."""
    import huggingface_hub

    state = SimpleNamespace(online=True, cached=False, asked=[])
    snapshot = tmp_path / "snapshots" / COMMIT

    def model_info(self, name, revision):
        if not state.online:
            raise httpx.ConnectError("no route to host")
        return SimpleNamespace(sha=COMMIT)

    def snapshot_download(name, *, revision, local_files_only=False, **options):
        state.asked.append((name, revision, local_files_only))
        if not state.online and not local_files_only:
            raise httpx.ConnectError("no route to host")
        if local_files_only and not state.cached:
            raise FileNotFoundError("nothing cached")
        if not snapshot.exists():
            shutil.copytree(saved, snapshot)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return state


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_hub_models_are_pinned_to_a_commit(hub, revision):
    lm = load_model("someone/tiny", revision=revision)
    assert (lm.source.kind, lm.source.revision, lm.name) == ("hub", COMMIT, "someone/tiny")
    assert hub.asked == [("someone/tiny", COMMIT, False)]


def test_offline_hub_model_comes_from_the_cache(hub):
    hub.online, hub.cached = False, True
    assert load_model("someone/tiny").source.revision == COMMIT


def test_offline_without_a_cache_says_what_to_do(hub):
    hub.online = False
    with pytest.raises(ModelError, match=r"no route to host.*connect once to fetch it"):
        load_model("someone/tiny")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_model_the_hub_does_not_give(monkeypatch, status):
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    def refuse(self, name, revision):
        request = httpx.Request("GET", "https://huggingface.co")
        raise HfHubHTTPError("refused", response=httpx.Response(status, request=request))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(ModelError, match=rf"status {status}\).*check the name"):
        model_loading.fetch_hub("someone/none", None)
