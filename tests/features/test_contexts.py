"""Firing statistics and contexts on held-out text, against a plain loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sae_lens
import torch

from affectlens.data.errors import ConfigError
from affectlens.data.store import Rows
from affectlens.features import contexts
from affectlens.features.columns import STATS_COLUMNS
from affectlens.features.contexts import feature_statistics, scan_heldout, top_contexts
from affectlens.features.results import Context, read_contexts, write_lines
from affectlens.sae.model import SparseAutoencoder

HOOK = "blocks.1.hook_resid_post"
D_IN, D_SAE = 8, 20


class MemoryStore:
    """Three held-out documents; the first was read in two windows."""

    documents = ("a", "b", "c")

    def __init__(self) -> None:
        lengths = [("a", 6), ("a", 5), ("b", 7), ("c", 4)]
        generator = torch.Generator().manual_seed(0)
        n = sum(k for _, k in lengths)
        position = np.concatenate([np.arange(k) for _, k in lengths]).astype(np.int32)
        doc = np.concatenate([[self.documents.index(d)] * k for d, k in lengths])
        self.all = Rows(
            acts=torch.randn(n, D_IN, generator=generator),
            keep=position > 0,
            doc=doc.astype(np.int32),
            position=position,
            token=np.arange(100, 100 + n, dtype=np.int32),
        )
        self.hooks: list[str] = []

    def heldout(self, hook: str, max_rows: int | None = None, *, kept_only: bool = True) -> Rows:
        assert not kept_only
        self.hooks.append(hook)
        r, cut = self.all, slice(None, max_rows)
        return Rows(r.acts[cut], r.keep[cut], r.doc[cut], r.position[cut], r.token[cut])


class Words:
    def decode(self, ids: Sequence[int]) -> str:
        return f"<{ids[0]}>"


@pytest.fixture
def store() -> Any:
    return MemoryStore()


@pytest.fixture(scope="module")
def sae() -> SparseAutoencoder:
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name=HOOK)
    model = sae_lens.StandardSAE(sae_lens.StandardSAEConfig(D_IN, D_SAE, metadata=metadata))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    model.b_enc.data[3] = -1e3  # never fires
    return SparseAutoencoder(model)


def expected(store: MemoryStore, sae: SparseAutoencoder) -> np.ndarray:
    z = sae.encode(store.all.acts).numpy()
    z[~store.all.keep] = 0
    return z


@pytest.mark.parametrize("block", [1, 5, 2048])
def test_statistics(
    store: Any, sae: SparseAutoencoder, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "BLOCK_ROWS", block)
    frame = feature_statistics(sae, store)
    z = expected(store, sae)[store.all.keep]
    assert list(frame.columns) == list(STATS_COLUMNS) and len(frame) == D_SAE
    np.testing.assert_allclose(frame["firing_rate"], (z > 0).mean(0))
    want = np.where((z > 0).any(0), z.sum(0) / np.maximum((z > 0).sum(0), 1), 0)
    np.testing.assert_allclose(frame["mean_active"], want, rtol=1e-5)
    np.testing.assert_allclose(frame["max_active"], z.max(0), rtol=1e-5)
    assert frame.loc[3, ["firing_rate", "mean_active", "max_active"]].tolist() == [0, 0, 0]
    assert store.hooks == [HOOK]


def test_contexts_peak_at_the_maximum_of_each_document(store: Any, sae: SparseAutoencoder) -> None:
    z = expected(store, sae)
    found = top_contexts(sae, store, Words(), [5, 0, 3], n=3, width=2)
    assert [c.feature for c in found] == sorted((c.feature for c in found), key=[5, 0, 3].index)
    assert not [c for c in found if c.feature == 3]
    for feature in (5, 0):
        own = [c for c in found if c.feature == feature]
        assert len({c.doc_id for c in own}) == len(own)
        peaks = [c.activations[c.peak] for c in own]
        assert peaks == sorted(peaks, reverse=True)
        assert peaks[0] == pytest.approx(z[:, feature].max())
        for c in own:
            rows = store.all.doc == store.documents.index(c.doc_id)
            assert c.activations[c.peak] == pytest.approx(z[rows, feature].max())


def test_contexts_stay_inside_the_window(store: Any, sae: SparseAutoencoder) -> None:
    z, rows = expected(store, sae), store.all
    for c in top_contexts(sae, store, Words(), range(D_SAE), n=3, width=50):
        assert len(c.tokens) == len(c.activations)
        first = int(c.tokens[0][1:-1]) - 100
        inside = slice(first, first + len(c.tokens))
        # A whole window: from position 0, one document, neighbours in the text.
        assert rows.position[inside].tolist() == list(range(len(c.tokens)))
        assert len(set(rows.doc[inside])) == 1
        assert c.position == rows.position[first + c.peak]
        np.testing.assert_allclose(c.activations, z[inside, c.feature], rtol=1e-5)
        assert c.activations[0] == 0  # the masked first token is shown without activation


def test_width_and_number_are_kept(store: Any, sae: SparseAutoencoder) -> None:
    found = top_contexts(sae, store, Words(), [5], n=1, width=1)
    assert len(found) == 1 and len(found[0].tokens) <= 3
    assert top_contexts(sae, store, Words(), [], n=1, width=1) == []


def test_row_limit_reaches_the_store(store: Any, sae: SparseAutoencoder) -> None:
    scan = scan_heldout(sae, store, features=[1], max_rows=10)
    assert scan.activations.shape == (10, 1) and len(scan.rows) == 10
    assert scan.n_tokens == int(store.all.keep[:10].sum())
    assert scan.rows.acts.shape[0] == 0


def test_unknown_latent_is_named(store: Any, sae: SparseAutoencoder) -> None:
    with pytest.raises(ConfigError, match="no latent 20: the SAE has latents 0 to 19"):
        scan_heldout(sae, store, features=[1, 20])


def test_tokens_that_look_like_ends_of_lines_come_back(tmp_path: Path) -> None:
    tokens = ["a\u2028b", "\u0085", "\x0b", "\n", "</script>", "\u202e"]
    context = Context(3, "doc", 0, 1, tokens, [0.0, 1.0, 0.5, 0.0, 0.0, 0.0])
    write_lines(tmp_path / "search/contexts.jsonl", [context, context])
    assert read_contexts(tmp_path) == [context, context]
    write_lines(tmp_path / "search/contexts.jsonl", [])
    assert read_contexts(tmp_path) == []
