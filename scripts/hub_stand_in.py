"""A hub cache that holds a tiny random GPT-2 and an SAE of it under the names of the real ones.

The tutorial on public SAEs is run against it where the hub cannot be reached: same repository
names, file layout and readers, random weights. What is found in it is therefore nothing.

The caller has to come here before anything imports `huggingface_hub`, which reads its settings from
the environment once.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from affectlens.data.models import LanguageModel

MODEL, SAE_REPO = "openai-community/gpt2", "jbloom/GPT2-Small-SAEs-Reformatted"
HOOK, LAYER = "blocks.8.hook_resid_pre", 8
COMMIT = hashlib.sha1(b"stand-in for a hub", usedforsecurity=False).hexdigest()
N_LAYERS, D_MODEL, D_SAE, L1 = 12, 32, 512, 1.0


def build(root: Path) -> None:
    """Fill the cache at `root` and make it the one that this process reads, offline."""
    os.environ |= {"HF_HUB_CACHE": str(root), "HF_HUB_OFFLINE": "1"}
    from transformers.utils import logging

    from affectlens.data.taxonomy import CALM_WORDS, EMOTION_WORDS
    from affectlens.data.tiny import tiny_model

    logging.disable_progress_bar()
    words = [word for group in (*EMOTION_WORDS.values(), CALM_WORDS) for word in group]
    lm = tiny_model("gpt2", n_layers=N_LAYERS, d_model=D_MODEL, words=words)
    folder = _snapshot(root, MODEL)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    _write_sae(lm, _snapshot(root, SAE_REPO) / HOOK, root / "training")


def _snapshot(root: Path, repo: str) -> Path:
    """The folder of a repository's only commit."""
    home = root / f"models--{repo.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    folder = home / "snapshots" / COMMIT
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_sae(lm: "LanguageModel", folder: Path, work: Path) -> None:
    """Train an SAE where `res-jb` has one, and write it as that release does."""
    from safetensors.torch import save_file

    import affectlens as al

    store = al.harvest(
        lm, "default", out=work / "acts", layers=(HOOK,), max_tokens=12_000, quiet=True
    )
    stored = store.rows(HOOK)
    acts = stored.acts[stored.keep]
    # Readers of this release remove the mean over d_model before they encode.
    acts = acts - acts.mean(-1, keepdim=True)
    n_held = len(acts) // 10
    batches = (acts[i : i + 512] for _ in range(40) for i in range(n_held, len(acts), 512))
    sae = al.train_on(
        batches, out=work / "sae", d_in=D_MODEL, heldout=acts[:n_held], n_samples=200_000,
        arch="standard", d_sae=D_SAE, sparsity={"l1_coefficient": L1}, batch_size=512, quiet=True,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in sae.sae.state_dict().items()}
    save_file(weights, folder / "sae_weights.safetensors")
    config = {"model_name": "gpt2-small", "hook_point": HOOK, "hook_point_layer": LAYER,
              "d_in": D_MODEL, "d_sae": D_SAE, "dtype": "torch.float32", "lr": 4e-4}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
