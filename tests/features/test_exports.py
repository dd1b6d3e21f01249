"""Exports: delphi's folder against a schema worked by hand, and Neuronpedia links."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from affectlens.data.errors import ConfigError
from affectlens.data.store import Rows
from affectlens.features.contexts import HeldoutScan
from affectlens.features.exports import NeuronpediaLink, NeuronpediaList, write_delphi


def test_delphi_folder_by_hand(tmp_path: Path) -> None:
    place = np.array([0, 1, 2, 3, 4, 0, 1], dtype=np.int32)
    doc = np.array([0] * 5 + [1] * 2, dtype=np.int32)
    token = np.arange(10, 17, dtype=np.int32)
    rows = Rows(torch.zeros(0, 1), np.ones(7, bool), doc, place, token)
    traces = np.zeros((7, 2), dtype=np.float32)
    traces[3, 0], traces[4, 0], traces[6, 0] = 2, 9, 0.5
    scan = HeldoutScan(pd.DataFrame(), (3, 8), traces, rows, ("a", "b"), 7)
    got = write_delphi(
        scan, tmp_path / "c", hook_name="blocks.1.x", model_name="m", d_sae=9, ctx_len=2
    )
    data = load_file(got.file)
    assert got.file.relative_to(tmp_path) == Path("c/blocks.1.x/0_8.safetensors")
    assert data["tokens"].tolist() == [[10, 11], [12, 13], [15, 16]]
    assert data["locations"].tolist() == [[1, 1, 3], [2, 1, 3]]
    assert data["locations"].dtype == np.uint16
    assert data["activations"].tolist() == [2, 0.5]
    assert (got.n_rows, got.n_entries, got.n_tokens_left_out, got.silent) == (3, 2, 1, (8,))
    config = json.loads((got.file.parent / "config.json").read_text())
    assert (config["ctx_len"], config["model_name"]) == (2, "m")
    with pytest.raises(ConfigError, match="smaller ctx_len"):
        write_delphi(scan, tmp_path / "d", hook_name="x", model_name="m", d_sae=9, ctx_len=6)
    with pytest.raises(ConfigError, match="folder"):
        write_delphi(scan, tmp_path / "d", hook_name="../x", model_name="m", d_sae=9)


def test_neuronpedia_list(tmp_path: Path) -> None:
    link = NeuronpediaLink("gpt2-small", "0-res-jb", 5, "u", ("all",))
    found = NeuronpediaList("gpt2-small/0-res-jb", "", (link,))
    written = json.loads(found.write(tmp_path / "n.json").read_text())
    assert written["features"] == [{"modelId": "gpt2-small", "layer": "0-res-jb", "index": "5"}]
    assert "quick-list/?name=a%20b&features=%5B" in str(found.quick_list("a b"))
    assert NeuronpediaList(None, "not public", ()).quick_list("x") is None
