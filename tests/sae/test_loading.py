import errno
from pathlib import Path

import pytest
import sae_lens
import torch
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors import SafetensorError

from affectlens.sae.errors import SAEError
from affectlens.sae.loading import check_fit, convert, load_sae, save_sae
from affectlens.sae.model import SparseAutoencoder


@pytest.mark.parametrize("architecture", ["standard", "gated", "topk", "abstopk", "jumprelu"])
def test_save_and_load_round_trip(raw, rows, tmp_path, architecture):
    metadata = {
        "hook_name": "blocks.1.hook_resid_post",
        "norm_limit": 9.0,
        "model_fingerprint": "f",
    }
    sae = SparseAutoencoder(raw(architecture, metadata=metadata))
    again = load_sae(save_sae(sae, tmp_path / "sae"))
    assert torch.equal(again.encode(rows), sae.encode(rows))
    assert again.fingerprint == sae.fingerprint
    assert (again.info.hook_name, again.info.norm_limit, again.info.model_fingerprint) == (
        "blocks.1.hook_resid_post", 9.0, "f")  # fmt: skip


def test_sae_lens_opens_what_we_save(folder, raw, rows):
    assert torch.equal(sae_lens.SAE.load_from_disk(folder).encode(rows), raw().encode(rows))


def test_saving_replaces_an_sae_but_nothing_else(raw, folder, tmp_path):
    newer = SparseAutoencoder(raw(seed=5))
    assert load_sae(save_sae(newer, folder)).fingerprint == newer.fingerprint
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with pytest.raises(SAEError, match="holds no SAE"):
        save_sae(newer, other)
    assert (other / "chapter.txt").exists()
    assert [p.name for p in tmp_path.glob(".staged*")] == []


def test_files_beside_an_sae_are_not_lost(raw, folder):
    before = load_sae(folder).fingerprint
    (folder / "notes.md").write_text("years of work")
    with pytest.raises(SAEError, match=r"holds notes\.md too, which would be lost"):
        save_sae(SparseAutoencoder(raw(seed=5)), folder)
    assert load_sae(folder).fingerprint == before
    (folder / "notes.md").rename(folder / "metrics.json")  # of the SAE that is replaced
    save_sae(SparseAutoencoder(raw(seed=5)), folder)
    assert sorted(p.name for p in folder.iterdir()) == ["cfg.json", "sae_weights.safetensors"]


def test_the_older_sae_stays_when_the_new_one_cannot_be_put_there(raw, folder, monkeypatch):
    before, real = load_sae(folder).fingerprint, Path.replace

    def full(self: Path, target: Path) -> Path:
        if target == folder and not self.name.endswith("-old"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        save_sae(SparseAutoencoder(raw(seed=5)), folder)
    assert load_sae(folder).fingerprint == before
    assert [p.name for p in folder.parent.glob(".staged*")] == []


def test_a_full_disk_is_one_whoever_says_it(raw, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space (os error 28)")

    monkeypatch.setattr("affectlens.sae.saving.write_sae", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save_sae(SparseAutoencoder(raw()), tmp_path / "sae")
    assert caught.value.errno == errno.ENOSPC


def test_targets_that_are_no_folders_of_their_own(raw, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SAEError, match="it is a file"):
        save_sae(SparseAutoencoder(raw()), tmp_path / "file")
    with pytest.raises(SAEError, match="cannot be written"):
        save_sae(SparseAutoencoder(raw()), tmp_path / "file" / "sae")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SAEError, match=r"^\. exists and holds no SAE"):
        save_sae(SparseAutoencoder(raw()), ".")


def test_a_linked_folder_stays_a_link(raw, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    newer = SparseAutoencoder(raw(seed=5))
    save_sae(newer, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert load_sae(folder).fingerprint == newer.fingerprint


def test_centring_can_be_declared_and_survives(raw, tmp_path, rows):
    sae = SparseAutoencoder(raw(), centre=True)
    again = load_sae(save_sae(sae, tmp_path / "sae"))
    assert again.info.centre
    assert torch.equal(again.encode(rows), sae.encode(rows))


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", "[" * 50_000])
def test_configuration_that_is_no_object(folder, text):
    (folder / "cfg.json").write_text(text)
    with pytest.raises(SAEError, match=r"JSON|expected an object"):
        load_sae(folder)


def test_huge_configuration(folder):
    (folder / "cfg.json").write_text(" " * 1_000_001)
    with pytest.raises(SAEError, match="1,000,001 bytes"):
        load_sae(folder)


def test_missing_and_damaged_weights(folder, unseal):
    weights = folder / "sae_weights.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(SAEError, match="not what was written"):
        load_sae(folder)
    unseal(folder)
    with pytest.raises(SAEError, match="cut short"):
        load_sae(folder)
    weights.unlink()
    with pytest.raises(SAEError, match=r"no sae_weights\.safetensors"):
        load_sae(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(raw, tmp_path, bad):
    sae = raw()
    sae.b_enc.data[3] = bad
    sae.save_model(tmp_path / "nan")
    with pytest.raises(SAEError, match="b_enc hold values that are not finite"):
        load_sae(tmp_path / "nan")


def test_a_folder_has_no_revision_and_a_foreign_file_is_named(folder, tmp_path):
    with pytest.raises(SAEError, match="a folder has no revisions"):
        load_sae(folder, revision="main")
    (tmp_path / "params.npz").touch()
    with pytest.raises(SAEError, match=r"Gemma Scope.*convert"):
        load_sae(tmp_path / "params.npz")


def test_a_plain_folder_is_not_centred_unless_told(raw, tmp_path, rows):
    raw("standard").save_model(tmp_path / "copied")
    assert not load_sae(tmp_path / "copied").info.centre
    told = load_sae(tmp_path / "copied", centre=True)
    assert told.info.centre
    expected = raw("standard").encode(rows - rows.mean(-1, keepdim=True))
    torch.testing.assert_close(told.encode(rows), expected)


@pytest.mark.parametrize(
    "hook",
    ["blocks.3.hook_mlp_out", "blocks.3.attn.hook_z", "blocks.3.hook_resid_mid", "hook_embed",
     "blocks.3.hook_attn_out", "model.layers.3.mlp", "model.embed_tokens", "transformer.wte",
     "model.norm", "transformer.ln_f", "model.layers.3.input_layernorm", "gpt_neox.embed_in"],
)  # fmt: skip
def test_places_beside_the_residual_stream_are_refused(raw, tmp_path, hook):
    raw(metadata={"hook_name": hook}).save_model(tmp_path / "sae")
    with pytest.raises(SAEError, match="only SAEs of the residual stream"):
        load_sae(tmp_path / "sae")


@pytest.mark.parametrize(
    "hook", ["", "blocks.3.hook_resid_pre", "blocks.3.hook_out", "model.layers.3"]
)
def test_places_on_the_residual_stream_are_not(raw, tmp_path, hook):
    raw(metadata={"hook_name": hook}).save_model(tmp_path / "sae")
    assert load_sae(tmp_path / "sae").info.hook_name == hook


def test_a_transcoder_is_refused_by_its_configuration(folder, unseal):
    unseal(folder, architecture="transcoder", d_out=8)
    with pytest.raises(SAEError, match="'transcoder' does not read and write one residual"):
        load_sae(folder)


def test_scaling_that_was_not_recorded_is_noted(raw, tmp_path):
    raw("standard", normalize_activations="expected_average_only_in").save_model(tmp_path / "sae")
    (note,) = load_sae(tmp_path / "sae").info.notes
    assert "expected_average_only_in" in note


def test_unknown_names_suggest_the_nearest(tmp_path):
    with pytest.raises(SAEError, match="gpt2-small-res-jb"):
        load_sae("gpt2-small-res-bj", "blocks.8.hook_resid_pre")
    with pytest.raises(SAEError, match=r"blocks\.8\.hook_resid_pre"):
        load_sae("gpt2-small-res-jb", "blocks.8.hook_resid_per")
    with pytest.raises(SAEError, match="several SAEs"):
        load_sae("gpt2-small-res-jb")
    with pytest.raises(SAEError, match="neither a folder"):
        load_sae(tmp_path / "nothing")
    with pytest.raises(SAEError, match="hub repository needs its folder as sae_id"):
        load_sae("someone/saes")


def test_folders_and_files_where_others_are_expected(folder):
    with pytest.raises(
        SAEError, match=r"is a folder, where SAEs have no ids; .*load_sae\('.*/x'\)"
    ):
        load_sae(folder, "x")
    with pytest.raises(SAEError, match=r"is a file; give the folder that holds cfg\.json"):
        load_sae(folder / "cfg.json")


def test_batchtopk_checkpoint_is_explained_and_converted(tmp_path, rows):
    config = sae_lens.BatchTopKTrainingSAEConfig(d_in=8, d_sae=24, k=4)
    training = sae_lens.BatchTopKTrainingSAE(config)
    training.topk_threshold.fill_(0.05)
    training.save_model(tmp_path / "checkpoint")
    with pytest.raises(SAEError, match="training checkpoint"):
        load_sae(tmp_path / "checkpoint")
    convert(tmp_path / "checkpoint", tmp_path / "out", hook_name="blocks.3.hook_resid_post")
    again = load_sae(tmp_path / "out")
    assert (again.info.architecture, again.info.k) == ("jumprelu", 4)
    assert again.info.hook_name == "blocks.3.hook_resid_post"
    training.save_inference_model(tmp_path / "reference")
    expected = sae_lens.SAE.load_from_disk(tmp_path / "reference").encode(rows)
    torch.testing.assert_close(again.encode(rows), expected)


def test_check_fit(raw):
    metadata = {"hook_name": "blocks.1.hook_resid_post", "model_fingerprint": "a" * 64}
    sae = SparseAutoencoder(raw(metadata=metadata))
    check_fit(sae, d_model=8, hook_name="blocks.1.hook_resid_post", fingerprint="a" * 64)
    with pytest.raises(SAEError, match=r"d_in=8.*d_model=9"):
        check_fit(sae, d_model=9)
    with pytest.raises(SAEError, match=r"blocks\.1.*blocks\.2"):
        check_fit(sae, hook_name="blocks.2.hook_resid_post")
    with pytest.raises(SAEError, match=r"aaaaaaaaaaaa.*bbbbbbbbbbbb"):
        check_fit(sae, fingerprint="b" * 64)
    check_fit(SparseAutoencoder(raw(metadata={})), hook_name="anything", fingerprint="b")


def test_error_carries_the_exit_code():
    assert SAEError.exit_code == 3


@pytest.mark.parametrize("architecture", ["standard", "topk", "batchtopk"])
def test_the_input_scale_of_a_checkpoint_is_folded(tmp_path, rows, architecture):
    cls, config = sae_lens.registry.SAE_TRAINING_CLASS_REGISTRY[architecture]
    k = {"k": 4} if "topk" in architecture else {}
    cfg = config(d_in=8, d_sae=24, normalize_activations="expected_average_only_in", **k)
    training = cls(cfg)
    training.b_dec.data += 0.2
    training.save_model(tmp_path / "checkpoint")
    ActivationScaler(scaling_factor=0.3).save(str(tmp_path / "checkpoint/activation_scaler.json"))
    training.fold_activation_norm_scaling_factor(0.3)  # as the trainer does when it ends
    training.save_inference_model(tmp_path / "reference")
    reference = sae_lens.SAE.load_from_disk(tmp_path / "reference")
    if architecture == "batchtopk":
        ours = convert(tmp_path / "checkpoint", tmp_path / "out")
    else:
        ours = load_sae(tmp_path / "checkpoint")
    torch.testing.assert_close(ours.encode(rows), reference.encode(rows))
    torch.testing.assert_close(ours.reconstruct(rows), reference(rows))
    assert not any("expected_average_only_in" in note for note in ours.info.notes)


@pytest.mark.parametrize(
    "content", ['{"scaling_factor": -1}', '{"scaling_factor": "x"}', "[1", "{}"]
)
def test_a_broken_input_scale_is_refused(raw, tmp_path, content):
    raw("standard", normalize_activations="expected_average_only_in").save_model(tmp_path / "sae")
    (tmp_path / "sae" / "activation_scaler.json").write_text(content)
    with pytest.raises(SAEError, match=r"scaling_factor|not valid JSON"):
        load_sae(tmp_path / "sae")


def test_matching_pursuit_has_no_encoder_and_opens(tmp_path, rows):
    sae = sae_lens.MatchingPursuitSAE(sae_lens.MatchingPursuitSAEConfig(d_in=8, d_sae=24))
    sae.save_model(tmp_path / "sae")
    again = load_sae(save_sae(load_sae(tmp_path / "sae"), tmp_path / "again"))
    assert again.info.architecture == "matching_pursuit"
    torch.testing.assert_close(again.encode(rows), sae.encode(rows))


@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu", "device is 'gpu', expected cpu, cuda"), ("cuda", "there is no CUDA device here")],
)
def test_devices_that_are_not_there(folder, monkeypatch, device, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SAEError, match=message):
        load_sae(folder, device=device)
