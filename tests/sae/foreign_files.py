"""Small SAEs in the files of other projects."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

D_IN, D_SAE = 8, 24


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.5


def write_npz(folder: Path, **changes) -> None:
    arrays = {"W_enc": normal(D_IN, D_SAE), "W_dec": normal(D_SAE, D_IN), "b_enc": normal(D_SAE),
              "b_dec": normal(D_IN), "threshold": normal(D_SAE).abs()}  # fmt: skip
    named = {k: np.asarray(v) for k, v in {**arrays, **changes}.items()}
    np.savez(folder / "params.npz", **named)


def gemma_3_folder(root: Path, place: str = "model.layers.5.output", **changes) -> str:
    name = "resid_post/layer_5_width_16k_l0_small"
    (root / name).mkdir(parents=True)
    config = {"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt",
              "hf_hook_point_in": place}  # fmt: skip
    (root / name / "config.json").write_text(json.dumps({**config, **changes}))
    tensors = {"w_enc": normal(D_IN, D_SAE), "w_dec": normal(D_SAE, D_IN), "b_enc": normal(D_SAE),
               "b_dec": normal(D_IN), "threshold": normal(D_SAE).abs()}  # fmt: skip
    save_file(tensors, root / name / "params.safetensors")
    return name


def llama_folder(root: Path, **changes) -> Path:
    folder = root / "Llama3_1-8B-Base-L7R-8x"
    (folder / "checkpoints").mkdir(parents=True)
    config = {"d_model": D_IN, "d_sae": D_SAE, "jump_relu_threshold": 0.4,
              "dataset_average_activation_norm": {"in": 5.5, "out": 5.5}, "act_fn": "jumprelu",
              "hook_point_in": "blocks.7.hook_resid_post",
              "hook_point_out": "blocks.7.hook_resid_post"}  # fmt: skip
    (folder / "hyperparams.json").write_text(json.dumps({**config, **changes}))
    tensors = {"encoder.weight": normal(D_SAE, D_IN), "decoder.weight": normal(D_IN, D_SAE),
               "encoder.bias": normal(D_SAE), "decoder.bias": normal(D_IN)}  # fmt: skip
    save_file(tensors, folder / "checkpoints" / "final.safetensors")
    return folder


def sparsify_folder(root: Path, name: str = "layers.7", **changes) -> Path:
    (root / name).mkdir(parents=True)
    config = {"d_in": D_IN, "num_latents": 0, "expansion_factor": 3, "k": 4, **changes}
    (root / name / "cfg.json").write_text(json.dumps(config))
    tensors = {"encoder.weight": normal(D_SAE, D_IN), "encoder.bias": normal(D_SAE),
               "W_dec": normal(D_SAE, D_IN, seed=1), "b_dec": normal(D_IN)}  # fmt: skip
    save_file(tensors, root / name / "sae.safetensors")
    return root / name
