"""`affectlens export`: vectors and the SAE for the hub, from a searched run; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import sae_lens
import torch
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

import affectlens
from affectlens.cli_export_vectors import file_name
from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.data.models import load_model
from affectlens.data.stimuli import load_battery
from affectlens.features.config import SearchConfig
from affectlens.features.search import search
from affectlens.features.vector_files import read_vectors
from affectlens.sae.loading import load_sae
from affectlens.sae_export import export_sae

HOOK = "blocks.2.hook_resid_post"
Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def run(inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A searched run of a tiny model, without activations."""
    folder = tmp_path_factory.mktemp("export") / "run"
    lm, battery = load_model("tiny:llama"), load_battery(str(inputs.battery))
    metadata = sae_lens.saes.sae.SAEMetadata(
        hook_name=HOOK, model_name=lm.name, model_fingerprint=lm.fingerprint
    )
    raw = sae_lens.TopKSAE(sae_lens.TopKSAEConfig(d_in=32, d_sae=64, k=8, metadata=metadata))
    generator = torch.Generator().manual_seed(0)
    for parameter in raw.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    raw.save_model(folder / "sae")
    made = {"model": "tiny:llama", "battery": str(inputs.battery)}
    (folder / "config.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")
    config = SearchConfig(pooling="mean", n_permutations=200, min_items=2, alpha=0.2)
    search(lm, load_sae(folder / "sae"), battery, config, out=folder)
    metrics = {"fvu": 0.25, "l0": 8.0, "hook_name": HOOK, "d_sae": 64, "n_heldout_tokens": 1234}
    (folder / "sae/metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    record = {"corpus": {"name": "stories", "n_tokens": 9000, "origin": {"licence": "CC0-1.0"}}}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_vectors(run: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "v"
    words = ["export", run, "--quiet", "--emotion", "all", "--n", "2", "--length", "unit"]
    done = cli(*words, "--to", "gguf", "--out", out, "--licence", "mit", "--json")
    assert done.code == 0, done.err
    record = done.json["vectors"]["all.gguf"]
    assert (record["hook_name"], record["origin"]["model_type"]) == (HOOK, "llama")
    (vector,) = read_vectors(out / "all.gguf")
    assert len(vector.origin.features) == 2 and vector.norm == pytest.approx(1)
    assert [t.name for t in gguf.GGUFReader(out / "all.gguf").tensors] == ["direction.2"]
    again = cli(*words, "--to", "gguf", "--out", out)
    assert again.code == 2 and "--force" in again.err
    assert cli(*words, "--to", "gguf", "--out", out, "--force").code == 0
    other = cli(*words, "--to", "csv", "--out", out, "--force")
    assert other.code == 2 and "all.gguf" in other.err and (out / "all.gguf").exists()
    plain = cli("export", run, "--to", "gguf", "--out", tmp_path / "w", "--emotion", "all")
    assert plain.code == 2 and "no activations" in plain.err
    assert not (tmp_path / "w").exists()
    bad = cli(*words[:-1], "long", "--to", "gguf", "--out", tmp_path / "w")
    assert bad.code == 2 and "--length" in bad.err


def test_the_sae_for_the_hub(run: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "hub"
    words = ["export", run, "--to", "sae", "--out", out, "--quiet"]
    done = cli(*words, "--licence", "mit", "--base-model", "Owner/model")
    assert done.code == 0, done.err
    opened = sae_lens.SAE.load_from_disk(out / HOOK)
    ours = load_sae(run / "sae")
    assert torch.equal(opened.W_dec, ours.W_dec)
    assert opened.cfg.metadata.hook_name == HOOK
    assert load_sae(out / HOOK).info.sha256 == ours.info.sha256
    text = (out / "README.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    assert (card.data.library_name, card.data.license) == ("saelens", "mit")
    for said in ("0.2500", "1,234 held-out tokens", "CC0-1.0", "25% of the variance", "stories"):
        assert said in text, said
    assert cli(*words).code == 2
    assert cli(*words, "--force").code == 0
    (out / "notes.txt").touch()
    refused = cli(*words, "--force")
    assert refused.code == 2 and "notes.txt" in refused.err


def test_a_run_of_another_sae_is_refused(run: Path, tmp_path: Path) -> None:
    raw = sae_lens.TopKSAE(
        sae_lens.TopKSAEConfig(
            d_in=32,
            d_sae=48,
            k=8,
            metadata=sae_lens.saes.sae.SAEMetadata(hook_name=HOOK, model_name="m"),
        )
    )
    from affectlens.sae.model import SparseAutoencoder

    other = SparseAutoencoder(raw)
    with pytest.raises(ArtifactError, match="another SAE"):
        export_sae(other, tmp_path / "x", run=run)
    assert not (tmp_path / "x").exists()
    export_sae(other, tmp_path / "x")
    with pytest.raises(ConfigError, match="--force"):
        export_sae(other, tmp_path / "x")
    with pytest.raises(ConfigError, match="holds no exported SAE"):
        export_sae(other, run, force=True)
    assert affectlens.__version__


@given(st.text())
def test_emotions_make_safe_file_names(text: str) -> None:
    made = file_name(text)
    assert made and made[0] != "." and len(made.encode()) <= 80
    assert not set(made) & set('/\\:\0 \n"*?<>|')
