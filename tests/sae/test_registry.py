"""Published SAEs through a hub cache that the test builds; nothing here reaches the network."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import sae_lens
import torch
from sae_lens.loading import pretrained_sae_loaders as theirs
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from affectlens.sae.errors import SAEError
from affectlens.sae.loading import load_sae, save_sae
from affectlens.sae.registry import _REFUSED_READERS, PinnedHub

from .foreign_files import D_IN, D_SAE, normal

OLD, NEW = "a" * 40, "b" * 40
RES_JB, HOOK = "jbloom/GPT2-Small-SAEs-Reformatted", "blocks.8.hook_resid_pre"


def res_jb(seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A small SAE in the form that the releases of GPT-2 had before version 6 of sae-lens."""
    config = {"model_name": "gpt2-small", "hook_point": HOOK, "hook_point_layer": 8, "d_in": D_IN,
              "d_sae": D_SAE, "dtype": "torch.float32", "lr": 4e-4}  # fmt: skip
    weights = {
        "W_enc": normal(D_IN, D_SAE, seed=seed),
        "W_dec": normal(D_SAE, D_IN, seed=seed + 1),
        "b_enc": normal(D_SAE, seed=seed + 2),
        "b_dec": normal(D_IN, seed=seed + 3),
    }
    return {f"{HOOK}/cfg.json": {**config, **changes}, f"{HOOK}/sae_weights.safetensors": weights}


def test_res_jb_from_a_warm_cache_is_centred_and_named(cache, rows, tmp_path):
    files = res_jb()
    cache.add(RES_JB, OLD, files)
    sae = load_sae("gpt2-small-res-jb", HOOK)
    w = files[f"{HOOK}/sae_weights.safetensors"]
    x = rows - rows.mean(-1, keepdim=True)
    torch.testing.assert_close(
        sae.encode(rows), ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    )
    info = sae.info
    assert (info.centre, info.hook_name, info.model_name) == (True, HOOK, "gpt2-small")
    assert (info.release, info.sae_id) == ("gpt2-small-res-jb", HOOK)
    assert (info.repo_id, info.revision, info.verified) == (RES_JB, OLD, True)
    assert info.source == f"gpt2-small-res-jb/{HOOK}"
    assert not load_sae("gpt2-small-res-jb", HOOK, centre=False).info.centre
    again = load_sae(save_sae(sae, tmp_path / "saved")).info
    assert (again.centre, again.revision, again.release) == (True, OLD, "gpt2-small-res-jb")
    plain = cache.root / f"models--{RES_JB.replace('/', '--')}" / "snapshots" / OLD / HOOK
    assert not load_sae(plain).info.centre


def test_a_revision_is_read_and_not_the_newest(cache):
    cache.add(RES_JB, OLD, res_jb(seed=0), ref="v1")
    cache.add(RES_JB, NEW, res_jb(seed=9))
    newest = load_sae("gpt2-small-res-jb", HOOK)
    old = load_sae("gpt2-small-res-jb", HOOK, revision=OLD)
    assert (newest.info.revision, old.info.revision) == (NEW, OLD)
    assert newest.fingerprint != old.fingerprint
    tagged = load_sae("gpt2-small-res-jb", HOOK, revision="v1")
    assert (tagged.info.revision, tagged.fingerprint) == (OLD, old.fingerprint)


def test_all_files_come_from_the_commit_of_the_first(cache, monkeypatch):
    cache.add(RES_JB, OLD, res_jb(seed=0))
    cache.add(RES_JB, NEW, res_jb(seed=9), ref="later")
    main = cache.root / f"models--{RES_JB.replace('/', '--')}" / "refs" / "main"
    real = huggingface_hub.hf_hub_download

    def moves_on(*args, **kwargs):
        path = real(*args, **kwargs)
        main.write_text(NEW)  # somebody pushes between two downloads
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", moves_on)
    sae = load_sae("gpt2-small-res-jb", HOOK)
    assert sae.info.revision == OLD
    assert sae.fingerprint == load_sae("gpt2-small-res-jb", HOOK, revision=OLD).fingerprint


def test_nothing_shared_is_replaced_and_threads_do_not_mix(cache):
    cache.add(RES_JB, OLD, res_jb(seed=0), ref="v1")
    cache.add(RES_JB, NEW, res_jb(seed=9))
    before = theirs.hf_hub_download

    def load(revision: str) -> list[str | None]:
        return [load_sae("gpt2-small-res-jb", HOOK, revision=revision).info.revision
                for _ in range(3)]  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(load, (OLD, NEW))) == [[OLD] * 3, [NEW] * 3]
    assert theirs.hf_hub_download is before


def test_an_empty_cache_offline_says_how_to_fetch(cache):
    with pytest.raises(SAEError, match=(
        r"not in the local cache.*hf download jbloom/GPT2-Small-SAEs-Reformatted "
        r"--include 'blocks\.8\.hook_resid_pre/\*'"
    )):  # fmt: skip
        load_sae("gpt2-small-res-jb", HOOK)
    cache.add(RES_JB, OLD, res_jb())
    with pytest.raises(SAEError, match=f"--revision {NEW}"):
        load_sae("gpt2-small-res-jb", HOOK, revision=NEW)


@pytest.mark.parametrize(
    ("release", "pattern"),
    [
        ("gpt2-small-resid-post-v5-32k", "v5_32k_layer_0.pt/*"),  # a folder with a dot in its name
        ("qwen-scope-3-1.7b-base-w32k-l50", "layer0.sae.pt"),
        ("goodfire-llama-3.1-8b-instruct", "Llama-3.1-8B-Instruct-SAE-l19.pth"),
        ("gemma-scope-2b-pt-res-canonical", "layer_0/width_16k/average_l0_105/*"),
    ],
)
def test_the_command_that_fetches_names_files_or_folders(cache, release, pattern):
    first = next(iter(get_pretrained_saes_directory()[release].saes_map))
    with pytest.raises(SAEError, match=re.escape(f"--include '{pattern}' (")):
        load_sae(release, first)


def test_a_folder_that_the_repository_lacks_is_not_to_be_fetched(cache, monkeypatch):
    def absent(*args, **kwargs):
        raise theirs.EntryNotFoundError("404 Client Error. Entry Not Found")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", absent)
    with pytest.raises(SAEError, match="someone/saes holds no such SAE at that revision; check"):
        load_sae("someone/saes", "wrong")


def test_half_a_cache_offline_says_how_to_fetch(cache):
    files = res_jb()
    del files[f"{HOOK}/sae_weights.safetensors"]
    cache.add(RES_JB, OLD, files)
    with pytest.raises(SAEError, match="not in the local cache, or not whole"):
        load_sae("gpt2-small-res-jb", HOOK)


def test_a_damaged_cache_is_noticed(cache):
    cache.add(RES_JB, OLD, res_jb())
    path = next((cache.root).glob("*/snapshots/*/*/sae_weights.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.resolve().write_bytes(data)
    with pytest.raises(SAEError, match=r"is damaged: its SHA-256.*delete .* fetch it again"):
        load_sae("gpt2-small-res-jb", HOOK)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hook_point": "blocks.8.hook_mlp_out"}, r"hook_mlp_out.*only SAEs of the residual"),
        ({"hook_point": "somewhere"}, r"reads 'somewhere'; supported are"),
        ({"hook_point": ["x"]}, "hook_point is"),
        ({"d_sae": 10**9}, "d_sae is 1000000000"),
        ({"d_sae": 25}, "size mismatch"),
        ({"architecture": "transcoder"}, "does not read and write one residual"),
        ({"apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input is 'yes'"),
    ],
)
def test_configurations_from_the_hub_are_checked(cache, changes, message):
    cache.add(RES_JB, OLD, res_jb(**changes))
    with pytest.raises(SAEError, match=message):
        load_sae("gpt2-small-res-jb", HOOK)


def test_weights_from_the_hub_that_are_not_finite_are_refused(cache):
    files = res_jb()
    files[f"{HOOK}/sae_weights.safetensors"]["b_enc"][0] = float("nan")
    cache.add(RES_JB, OLD, files)
    with pytest.raises(SAEError, match="b_enc hold values that are not finite"):
        load_sae("gpt2-small-res-jb", HOOK)


def test_repositories_beside_the_registry(cache, raw, rows):
    cfg = {**raw().cfg.to_dict(), "metadata": {"hook_name": "blocks.1.hook_resid_post",
                                               "sae_lens_version": "6.0.0"}}  # fmt: skip
    state = {k: v.clone() for k, v in raw().state_dict().items()}
    cache.add("someone/saes", NEW, {"a/cfg.json": cfg, "a/sae_weights.safetensors": state})
    sae = load_sae("someone/saes", "a")
    assert (sae.info.repo_id, sae.info.revision) == ("someone/saes", NEW)
    torch.testing.assert_close(sae.encode(rows), raw().encode(rows))


def test_a_known_repository_is_asked_for_by_its_release(cache):
    with pytest.raises(SAEError, match=r"settings that the files lack.*use gpt2-small-res-jb"):
        load_sae(RES_JB, HOOK)


@pytest.mark.parametrize(
    ("release", "message"),
    [
        ("gemma-scope-2b-pt-transcoders", "transcoders are not supported"),
        ("gemma-scope-2-270m-pt-att", "attn_out is not supported"),
        ("gemma-scope-2-270m-pt-mlp-all", "mlp_out_all is not supported"),
        ("gemma-scope-2-270m-it-transcoders", "transcoder is not supported"),
        ("gpt2-small-hook-z-kk", "SAEs of attention heads are not supported"),
        ("temporal-sae-gemma-2-2b", "temporal SAEs are not supported"),
        ("mwhanna-qwen3-4b-transcoders", "transcoders are not supported"),
        ("gpt2-small-mlp-tm", r"hook_mlp_out.*only SAEs of the residual"),
        ("gpt2-small-resid-mid-v5-32k", r"hook_resid_mid.*only SAEs of the residual"),
        ("pythia-70m-deduped-att-sm", r"hook_attn_out.*only SAEs of the residual"),
        ("gemma-scope-2b-pt-att", r"attn\.hook_z.*only SAEs of the residual"),
        ("gemma-scope-2b-pt-mlp-canonical", r"hook_mlp_out.*only SAEs of the residual"),
    ],
)
def test_other_kinds_of_model_are_refused_before_anything_is_fetched(
    cache, monkeypatch, release, message
):
    def fetched(*args, **kwargs):
        raise AssertionError("something was fetched")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    first = next(iter(get_pretrained_saes_directory()[release].saes_map))
    with pytest.raises(SAEError, match=message):
        load_sae(release, first)


def test_every_reader_of_the_registry_is_known():
    used = {lookup.conversion_func or "sae_lens"
            for lookup in get_pretrained_saes_directory().values()}  # fmt: skip
    assert used >= set(_REFUSED_READERS)
    assert used <= set(theirs.NAMED_PRETRAINED_SAE_LOADERS)
    assert used <= set(theirs.NAMED_PRETRAINED_SAE_CONFIG_GETTERS)


def test_gemma_scope_2_from_the_cache_alone(cache, rows):
    name = "resid_post/layer_12_width_16k_l0_big"
    weights = {"w_enc": normal(D_IN, D_SAE), "w_dec": normal(D_SAE, D_IN), "b_enc": normal(D_SAE),
               "b_dec": normal(D_IN), "threshold": normal(D_SAE).abs()}  # fmt: skip
    config = {"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt",
              "hf_hook_point_in": "model.layers.12.output"}  # fmt: skip
    files = {f"{name}/config.json": {"config": config}, f"{name}/params.safetensors": weights}
    cache.add("google/gemma-scope-2-270m-pt", NEW, files)
    sae = load_sae("gemma-scope-2-270m-pt-res", "layer_12_width_16k_l0_big")
    assert (sae.info.hook_name, sae.info.revision) == ("blocks.12.hook_resid_post", NEW)
    pre = rows @ weights["w_enc"] + weights["b_enc"]
    torch.testing.assert_close(sae.encode(rows), pre.relu() * (pre > weights["threshold"]))


def test_gemma_scope_from_the_cache(cache, monkeypatch, rows):
    release, name = "gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71"
    arrays = {"W_enc": normal(2304, 16), "W_dec": normal(16, 2304), "b_enc": normal(16),
              "b_dec": normal(2304), "threshold": normal(16).abs()}  # fmt: skip
    named = {k: v.numpy() for k, v in arrays.items()}
    cache.add("google/gemma-scope-2b-pt-res", NEW, {
        f"{name}/params.npz": lambda handle: np.savez(handle, **named)})  # fmt: skip
    # The width comes from the folder's name; one that the file does not have is an error of ours.
    with pytest.raises(SAEError, match="size mismatch"):
        load_sae(release, name)


def test_dictionary_learning_from_the_cache(cache, rows):
    release, sae_id = (
        "sae_bench_pythia70m_sweep_topk_ctx128_0730",
        "blocks.3.hook_resid_post__trainer_0",
    )
    name = "pythia70m_sweep_topk_ctx128_0730/resid_post_layer_3/trainer_0"
    state = {"encoder.weight": normal(D_SAE, D_IN), "encoder.bias": normal(D_SAE),
             "decoder.weight": normal(D_IN, D_SAE), "b_dec": normal(D_IN)}  # fmt: skip
    config = {"trainer": {"layer": 3, "dict_class": "AutoEncoderTopK", "k": 4, "dict_size": D_SAE,
                          "activation_dim": D_IN, "lm_name": "EleutherAI/pythia-70m-deduped"},
              "buffer": {"ctx_len": 128}}  # fmt: skip
    cache.add("canrager/lm_sae", NEW, {
        f"{name}/config.json": {"config": config},
        f"{name}/ae.pt": lambda handle: torch.save(state, handle)})  # fmt: skip
    sae = load_sae(release, sae_id)
    assert (sae.info.architecture, sae.info.k, sae.info.revision) == ("topk", 4, NEW)
    assert (sae.encode(rows) != 0).sum(-1).max() <= 4


def test_the_variable_that_allows_unpickling_is_refused(cache, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(SAEError, match=r"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set.*unset it"):
        load_sae("gpt2-small-res-jb", HOOK)


def test_a_download_names_its_commit_and_leaves_the_sparsity_out(cache):
    cache.add(RES_JB, OLD, res_jb())
    hub = PinnedHub()
    assert hub.commit is None
    hub.download(RES_JB, f"{HOOK}/cfg.json")
    assert hub.commit == OLD
    with pytest.raises(theirs.EntryNotFoundError, match="not read"):
        hub.download(RES_JB, f"{HOOK}/sparsity.safetensors")
    assert hub.shapes(RES_JB, f"{HOOK}/sae_weights.safetensors")["W_enc"] == [D_IN, D_SAE]


def test_our_reading_equals_from_pretrained(cache, rows):
    cache.add(RES_JB, OLD, res_jb())
    with pytest.warns(UserWarning, match="model_from_pretrained_kwargs"):
        reference = sae_lens.SAE.from_pretrained("gpt2-small-res-jb", HOOK)
    sae = load_sae("gpt2-small-res-jb", HOOK)
    centred = rows - rows.mean(-1, keepdim=True)
    assert torch.equal(sae.encode(rows), reference.encode(centred))
