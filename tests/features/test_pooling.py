"""Pooling against dense arithmetic, item by item; and what is read where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from affectlens.data.errors import ConfigError, StimulusError
from affectlens.features.config import SearchConfig
from affectlens.features.effects_config import InterveneConfig
from affectlens.features.encoding import Reading, TokenActivations
from affectlens.features.pooling import (
    POOLINGS,
    READOUT_PROMPTS,
    Pooling,
    pool,
    reading_for,
    reads_frame,
)

D_SAE = 5


def make(
    dense: np.ndarray,
    lengths: list[int],
    keep: np.ndarray | None = None,
    *,
    n_head: int = 0,
    n_tail: int = 0,
    name: str = "",
) -> TokenActivations:
    """Token activations of dense values [n_tokens, d_sae]; masked rows are emptied."""
    keep = np.ones(len(dense), dtype=bool) if keep is None else keep
    dense = np.where(keep[:, None], dense, 0).astype(np.float32)
    return TokenActivations(
        hook_name="blocks.1.hook_resid_post",
        sae_sha256="00",
        d_sae=dense.shape[1],
        reading=Reading(name=name or ("suffix" if n_tail else "text")),
        item_ids=tuple(f"i{i}" for i in range(len(lengths))),
        first=np.cumsum([0, *lengths]).astype(np.int64),
        tokens=np.arange(len(dense), dtype=np.int32),
        keep=keep,
        n_tail=n_tail,
        indptr=np.cumsum([0, *(dense != 0).sum(1)]).astype(np.int64),
        latents=np.nonzero(dense)[1].astype(np.int32),
        values=dense[dense != 0],
        n_head=n_head,
    )


def by_hand(encoded: TokenActivations, pooling: Pooling) -> np.ndarray:
    """Pooled [n_items, d_sae], one item after the other, from the dense matrix."""
    dense = encoded.matrix().toarray().astype(np.float64)
    rows = []
    for start, stop in zip(encoded.first[:-1], encoded.first[1:], strict=True):
        own = range(start + encoded.n_head, stop - encoded.n_tail)
        tokens = {
            "suffix": range(stop - encoded.n_tail, stop),
            "suffix_last": [stop - 1],
            "readout": [stop - 1],
        }.get(pooling, own)
        used = [t for t in tokens if encoded.keep[t]]
        z = dense[used[-1:] if pooling == "last" else used]
        rows.append(
            z.max(0) if pooling == "max" else (z != 0).mean(0) if pooling == "firing" else z.mean(0)
        )
    return np.array(rows)


@st.composite
def encodings(draw: st.DrawFn) -> TokenActivations:
    n_head, n_tail = draw(st.integers(0, 2)), draw(st.integers(1, 3))
    own = draw(st.lists(st.integers(2, 5), min_size=1, max_size=5))
    lengths = [n + n_head + n_tail for n in own]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, density = sum(lengths), draw(st.sampled_from([0.0, 0.2, 0.7, 1.0]))
    # Small whole numbers of both signs: ties, and sums that cancel to 0, are common.
    dense = rng.integers(-2, 3, size=(n, D_SAE)) * (rng.random((n, D_SAE)) < density)
    keep = rng.random(n) < 0.7
    ends = np.cumsum(lengths)
    keep[ends - 1] = True
    keep[ends - n_tail - 1 - rng.integers(0, 2, len(ends))] = True
    return make(dense, lengths, keep, n_head=n_head, n_tail=n_tail, name="feeling")


@given(encodings(), st.sampled_from(POOLINGS))
def test_every_pooling_is_its_definition(encoded: TokenActivations, pooling: Pooling) -> None:
    found, want = pool(encoded, pooling), by_hand(encoded, pooling)
    assert isinstance(found.values, scipy.sparse.csc_array)
    assert found.values.shape == want.shape and found.values.dtype == np.float32
    np.testing.assert_allclose(found.values.toarray(), want, rtol=1e-6, atol=0)
    assert found.values.nnz == np.count_nonzero(want) and found.values.has_canonical_format
    assert found.item_ids == encoded.item_ids and found.pooling == pooling
    assert found.n_read.dtype == np.int64 and (found.n_read >= 1).all()


def test_numbers_worked_by_hand() -> None:
    # Two items; the first token of each is masked; the last token is the suffix.
    dense = np.array([[9, 9], [1, 0], [3, 2], [5, 0], [9, 9], [0, 0], [0, 4]])
    keep = np.array([0, 1, 1, 1, 0, 1, 1], dtype=bool)
    encoded = make(dense, [4, 3], keep, n_tail=1)
    want = {
        "mean": [[2, 1], [0, 0]],
        "max": [[3, 2], [0, 0]],
        "last": [[3, 2], [0, 0]],
        "firing": [[1, 0.5], [0, 0]],
        "suffix": [[5, 0], [0, 4]],
        "suffix_last": [[5, 0], [0, 4]],
    }
    for pooling, values in want.items():
        found = pool(encoded, pooling)  # type: ignore[arg-type]
        assert found.values.toarray().tolist() == values, pooling
        own = pooling in ("mean", "max", "firing")
        assert found.n_read.tolist() == ([2, 1] if own else [1, 1])
        assert found.n_masked == (2 if own else 0)


def test_a_negative_latent_counts_as_active_and_loses_against_silence() -> None:
    dense = np.array([[-2, -2], [-1, 0]])
    encoded = make(dense, [2])
    assert pool(encoded, "max").values.toarray().tolist() == [[-1, 0]]
    assert pool(encoded, "firing").values.toarray().tolist() == [[1, 0.5]]
    assert pool(encoded, "mean").values.toarray().tolist() == [[-1.5, -1]]


def test_last_moves_on_past_masked_tokens() -> None:
    keep = np.array([1, 1, 0, 1, 0, 0], dtype=bool)
    encoded = make(np.arange(6)[:, None] + 1.0, [3, 3], keep)
    found = pool(encoded, "last")
    assert found.values.toarray().tolist() == [[2], [4]] and found.n_masked == 0
    frame = reads_frame(encoded, "last", lambda t: f"<{t}>")
    assert frame["position"].tolist() == [1, 0] and frame["token"].tolist() == ["<1>", "<3>"]


def test_the_frame_says_where_texts_are_read() -> None:
    encoded = make(np.ones((9, 2)), [4, 5], n_head=1, n_tail=2)
    frame = reads_frame(encoded, "mean", str)
    assert list(frame.columns) == ["item_id", "n_read", "position", "token", "before"]
    assert frame.to_numpy().tolist() == [["i0", 1, 1, "1", "0"], ["i1", 2, 2, "6", "45"]]
    frame = reads_frame(encoded, "suffix", str)
    assert frame.to_numpy().tolist() == [["i0", 2, 3, "3", "012"], ["i1", 2, 4, "8", "4567"]]


def test_the_frame_shows_the_text_before_the_token_and_no_more() -> None:
    encoded = make(np.ones((14, 2)), [3, 11])
    frame = reads_frame(encoded, "last", str)
    assert frame["before"].tolist() == ["01", "5678910" + "11" + "12"]


def test_read_tokens_are_shown_where_they_are_shared() -> None:
    encoded = make(np.ones((8, 2)), [4, 4], n_tail=2, name="feeling")
    encoded = replace(encoded, tokens=np.array([1, 2, 7, 8, 3, 4, 7, 8], dtype=np.int32))
    names = {7: " the", 8: " end"}.__getitem__
    assert pool(encoded, "suffix", names).read_tokens == (" the", " end")
    assert pool(encoded, "suffix_last", names).read_tokens == (" end",)
    assert pool(encoded, "readout", names).read_tokens == (" end",)
    assert pool(encoded, "mean", names).read_tokens == ()
    assert pool(encoded, "suffix").read_tokens == ()


def test_an_item_with_nothing_to_read_is_named() -> None:
    keep = np.array([1, 1, 0, 0, 1, 0], dtype=bool)
    encoded = make(np.ones((6, 2)), [2, 2, 2], keep)
    with pytest.raises(StimulusError, match=r"1 of 3 items have no token to read, .* 'i1'"):
        pool(encoded, "mean")
    with pytest.raises(StimulusError, match=r"1 of 3 items .* 'i1'"):
        reads_frame(encoded, "last", str)
    keep = np.array([1, 1, 1, 0, 1, 0], dtype=bool)
    with pytest.raises(StimulusError, match=r"2 of 3 items .* 'i1'"):
        pool(make(np.ones((6, 2)), [2, 2, 2], keep, n_tail=1), "suffix_last")
    with pytest.raises(StimulusError, match=r"1 of 1 items .*none of its own"):
        pool(make(np.ones((2, 2)), [2], n_head=1, n_tail=1), "mean")


def test_texts_are_pooled_only_as_they_were_read() -> None:
    bare, suffixed = make(np.ones((2, 2)), [2]), make(np.ones((2, 2)), [2], n_tail=1)
    for pooling in ("suffix", "suffix_last", "readout"):
        with pytest.raises(ConfigError, match=f"'{pooling}' reads a suffix.*without one"):
            pool(bare, pooling)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="were read as 'suffix'"):
        pool(suffixed, "readout")
    with pytest.raises(ConfigError, match="unknown pooling 'median'; known: suffix, suffix_last"):
        pool(bare, "median")  # type: ignore[arg-type]


def test_no_entries_at_all_give_an_empty_matrix() -> None:
    found = pool(make(np.zeros((4, 3)), [2, 2]), "mean")
    assert found.values.shape == (2, 3) and found.values.nnz == 0
    assert found.values.dtype == np.float32


def test_each_pooling_has_its_reading() -> None:
    config = SearchConfig(suffix=" The end.")
    for pooling in ("mean", "max", "last", "firing"):
        assert reading_for(pooling, config) == Reading()  # type: ignore[arg-type]
    for pooling in ("suffix", "suffix_last"):
        assert reading_for(pooling, config) == Reading("", " The end.", "suffix")  # type: ignore[arg-type]
    assert reading_for("readout", config) == Reading("", READOUT_PROMPTS["feeling"], "feeling")
    with pytest.raises(ConfigError, match="unknown readout prompt 'mood'; known: feeling"):
        reading_for("readout", config, prompt="mood")
    with pytest.raises(ConfigError, match="'suffix_last' needs a sentence"):
        reading_for("suffix_last", SearchConfig(pooling="mean", suffix=" "))
    with pytest.raises(ConfigError, match="unknown pooling 'median'"):
        reading_for("median", config)  # type: ignore[arg-type]


def test_the_readout_prompt_is_the_one_that_effects_are_measured_with() -> None:
    assert READOUT_PROMPTS["feeling"] in InterveneConfig().templates


def test_a_million_latents_are_pooled_without_a_dense_table() -> None:
    rng = np.random.default_rng(0)
    n_items, n_tokens, active, d_sae = 480, 20, 16, 1_000_000
    n, step = n_items * n_tokens, d_sae // active
    latents = rng.integers(0, step, size=(n, active)) + step * np.arange(active)
    encoded = replace(
        make(np.zeros((n, 2)), [n_tokens] * n_items),
        d_sae=d_sae,
        indptr=np.arange(n + 1, dtype=np.int64) * active,
        latents=latents.ravel().astype(np.int32),
        values=rng.random(n * active).astype(np.float32) + np.float32(0.5),
    )
    found = pool(encoded, "mean").values
    assert found.shape == (n_items, d_sae) and found.nnz <= n * active
    one = encoded.item("i7")
    want = np.bincount(one.latents, one.values.astype(np.float64), d_sae) / n_tokens
    np.testing.assert_allclose(found[[7]].toarray()[0], want, rtol=1e-6)
