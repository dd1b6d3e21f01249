"""Every reader of the registry on small files of its form; nothing here reaches the network."""

import dataclasses
from typing import Any

import pytest
import sae_lens
import torch
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from affectlens.sae.loading import load_sae

from .foreign_files import D_IN, D_SAE, normal

NEW = "b" * 40
LINEAR = {"weight": normal(D_SAE, D_IN), "bias": normal(D_SAE, seed=1)}
BACK = {"weight": normal(D_IN, D_SAE, seed=2), "bias": normal(D_IN, seed=3)}
SMALL = {"d_in": D_IN, "d_sae": D_SAE}
L0, K = "blocks.0.hook_resid_post", 4
JUMP, NORM = 0.4, 5.5


def linear(into: str = "encoder", back: str = "decoder") -> dict[str, torch.Tensor]:
    return {**{f"{into}.{n}": v for n, v in LINEAR.items()},
            **{f"{back}.{n}": v for n, v in BACK.items()}}  # fmt: skip


def llama_scope() -> dict[str, Any]:
    config = {"d_model": D_IN, "d_sae": D_SAE, "jump_relu_threshold": JUMP, "hook_point_in": L0,
              "dataset_average_activation_norm": {"in": NORM, "out": NORM}}  # fmt: skip
    name = "Llama3_1-8B-Base-L0R-8x"
    return {f"{name}/hyperparams.json": {"config": config},
            f"{name}/checkpoints/final.safetensors": linear()}  # fmt: skip


def llama_scope_r1() -> dict[str, Any]:
    name = "800M-Slimpajama-0-OpenR1-Math-220k/L0R"
    config = {"d_model": D_IN, "expansion_factor": D_SAE // D_IN, "hook_point_in": L0}
    threshold = torch.full((D_SAE,), JUMP * D_IN**0.5 / NORM).log()
    return {f"{name}/config.json": {"config": config},
            f"{name}/sae_weights.safetensors": {**linear(), "log_jumprelu_threshold": threshold},
            }  # fmt: skip


def torch_file(state: dict[str, torch.Tensor]) -> Any:
    return lambda handle: torch.save(state, handle)


QWEN = {"W_enc": LINEAR["weight"], "b_enc": LINEAR["bias"],
        "W_dec": BACK["weight"], "b_dec": BACK["bias"]}  # fmt: skip
PUBLISHED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama_scope_lxr_8x": (L0, llama_scope(), {}),
    "llama_scope_r1_distill": (L0, llama_scope_r1(), {}),
    "qwen-scope-3-1.7b-base-w32k-l50": (
        L0, {"layer0.sae.pt": torch_file(QWEN)}, {**SMALL, "activation_fn_kwargs": {"k": K}}),
    "goodfire-llama-3.1-8b-instruct": (
        "blocks.19.hook_resid_post",
        {"Llama-3.1-8B-Instruct-SAE-l19.pth":
         torch_file(linear("encoder_linear", "decoder_linear"))}, SMALL),
    "deepseek-r1-distill-llama-8b-qresearch": (
        "blocks.19.hook_resid_post",
        {"DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt": torch_file(linear())}, SMALL),
}  # fmt: skip


@pytest.mark.parametrize("release", PUBLISHED)
def test_each_reader_of_the_registry_from_the_cache(cache, monkeypatch, rows, release):
    hook, files, sizes = PUBLISHED[release]
    directory = get_pretrained_saes_directory()
    # The published sizes stand in the readers, not in the files; only a release can change them.
    known = directory[release]
    overrides = {**(known.config_overrides or {}), **sizes}
    small = dataclasses.replace(known, config_overrides=overrides)
    monkeypatch.setitem(directory, release, small)
    cache.add(known.repo_id, NEW, files)
    sae_id = next(iter(known.saes_map))
    sae = load_sae(release, sae_id)
    reference = sae_lens.SAE.from_pretrained(release, sae_id)
    assert torch.equal(sae.encode(rows), reference.encode(rows))
    assert torch.equal(sae.reconstruct(rows), reference(rows))
    scale = known.norm_scaling_factor.get(sae_id, 1.0)
    z = (rows * scale @ LINEAR["weight"].T + LINEAR["bias"]).relu()
    if "qwen" in release:
        top = z.topk(K, dim=-1)
        z = torch.zeros_like(z).scatter(-1, top.indices, top.values)
    if "llama_scope" in release:
        z = z * (z > JUMP * D_IN**0.5 / NORM)
    torch.testing.assert_close(sae.encode(rows), z, rtol=1e-4, atol=1e-4)
    out = (z @ BACK["weight"].T + BACK["bias"]) / scale
    torch.testing.assert_close(sae.reconstruct(rows), out, rtol=1e-4, atol=1e-4)
    assert z.count_nonzero() > 20
    info = sae.info
    assert (info.hook_name, info.d_in, info.d_sae) == (hook, D_IN, D_SAE)
    assert (info.repo_id, info.revision, info.verified) == (known.repo_id, NEW, True)
    assert info.k == (K if "qwen" in release else None)
