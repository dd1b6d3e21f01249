import json
import weakref
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from affectlens.data.artifacts import folder_lock
from affectlens.data.corpus import held_out
from affectlens.data.errors import ArtifactError, ConfigError, MachineError, ModelError
from affectlens.data.masking import MaskRule
from affectlens.data.shards import to_storage
from affectlens.data.store import ActivationStore
from affectlens.data.store_writer import write_store

HOOK = "blocks.1.hook_resid_post"
OTHER = "blocks.2.hook_resid_post"
N, D, N_DOCS = 3000, 8, 60
DOCUMENTS = [f"d{i}" for i in range(N_DOCS)]


def planted(n: int = N) -> tuple[torch.Tensor, np.ndarray]:
    """Rows whose first column is their index, so that every row can be told from the others."""
    acts = torch.randn(n, D, generator=torch.Generator().manual_seed(0))
    acts[:, 0] = torch.arange(n)
    doc = np.sort(np.random.default_rng(0).integers(0, N_DOCS, n))
    return acts, doc


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    acts, doc = planted()
    folder = tmp_path_factory.mktemp("store") / "acts"
    rule = MaskRule(norm_limit=2500.0)
    token = np.arange(N) % 50
    return write_store(
        folder,
        {HOOK: acts, OTHER: 2 * acts},
        doc,
        documents=DOCUMENTS,
        token=token,
        rule=rule,
        rows_per_shard=1300,
        provenance={"made": "by hand"},
    )


def fresh(folder: Path, **options) -> ActivationStore:
    acts, doc = planted()
    return write_store(folder, {HOOK: acts}, doc, documents=DOCUMENTS, **options)


def ids(batches) -> list[int]:
    return [int(i) for batch in batches for i in batch[:, 0]]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def expected(store: ActivationStore, part: str) -> set[int]:
    acts, doc = planted()
    first = np.concatenate([[True], np.diff(doc) > 0])
    keep = ~first & (acts.norm(dim=1) <= 2500).numpy()
    marks = np.array(held_out(DOCUMENTS))[doc]
    return set(
        np.flatnonzero(keep & {"train": ~marks, "heldout": marks, "all": True}[part]).tolist()
    )


def test_what_a_store_says_about_itself(store):
    assert store.hook_names == [HOOK, OTHER]
    assert (store.d_model, store.n_rows) == (D, N)
    assert store.documents == tuple(DOCUMENTS)
    assert store.mask_rule(HOOK) == MaskRule(norm_limit=2500.0)
    assert store.provenance == {"made": "by hand"}
    assert store.n_kept(HOOK) == len(expected(store, "all"))
    assert store.n_kept(HOOK, "train") == len(expected(store, "train"))
    assert len(store.manifest["shards"]) == 3
    assert "3,000 rows" in repr(store)


def test_rows_cross_shards_and_come_back_as_written(store):
    acts, doc = planted()
    rows = store.rows(HOOK, 1200, 2700)
    assert torch.equal(rows.acts, acts[1200:2700])
    assert np.array_equal(rows.doc, doc[1200:2700])
    assert np.array_equal(rows.token, (np.arange(N) % 50)[1200:2700])
    assert np.array_equal(rows.position == 0, np.diff(doc, prepend=-1)[1200:2700] > 0)
    assert len(store.rows(HOOK)) == N
    assert len(store.rows(HOOK, 5, 5)) == 0
    assert torch.equal(store.rows(OTHER, 0, 10).acts, 2 * acts[:10])


def test_mean_is_over_kept_rows(store):
    acts, _ = planted()
    kept = sorted(expected(store, "all"))
    assert torch.allclose(store.mean(HOOK), acts[kept].double().mean(0).float())


@pytest.mark.parametrize("part", ["train", "heldout", "all"])
@pytest.mark.parametrize("buffer_chunks", [None, 1, 2])
def test_every_row_of_the_part_comes_once_in_an_epoch(store, part, buffer_chunks):
    options = {"part": part, "epochs": 1, "buffer_chunks": buffer_chunks}
    found = ids(store.iter_batches(HOOK, 64, generator=rng(), **options))
    assert len(found) == len(set(found))
    assert set(found) == expected(store, part)
    assert found != sorted(found)


def test_order_depends_on_the_seed_only(store):
    def run(seed: int) -> list[int]:
        return ids(store.iter_batches(HOOK, 64, generator=rng(seed), epochs=2))

    assert run(1) == run(1)
    assert run(1) != run(2)
    half = len(run(1)) // 2
    assert run(1)[:half] != run(1)[half:]
    assert sorted(run(1)[:half]) == sorted(run(1)[half:])


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 700),
    skip=st.integers(0, 40),
    buffer_chunks=st.sampled_from([None, 1, 2]),
    epochs=st.integers(1, 3),
)
def test_skipping_equals_reading_and_dropping(store, batch, skip, buffer_chunks, epochs):
    def run(skip: int) -> list[torch.Tensor]:
        options = {"epochs": epochs, "buffer_chunks": buffer_chunks, "skip": skip}
        return list(store.iter_batches(HOOK, batch, generator=rng(), **options))

    whole, rest = run(0), run(skip)
    assert all(len(b) == batch for b in whole[:-1])
    assert len(rest) == max(0, len(whole) - skip)
    assert all(torch.equal(a, b) for a, b in zip(whole[skip:], rest, strict=True))


def test_endless_batches_are_float32_copies(store):
    batches = store.iter_batches(HOOK, 1000, generator=rng(), buffer_chunks=1)
    taken = [next(batches) for _ in range(8)]
    assert {b.shape for b in taken} == {(1000, D)}
    assert {b.dtype for b in taken} == {torch.float32}
    taken[0].zero_()
    assert ids(store.iter_batches(HOOK, 1000, generator=rng(), buffer_chunks=1, epochs=1))


def test_the_buffer_never_holds_more_than_its_share(tmp_path, monkeypatch):
    """Counts the rows of all tensors that rows were read into and that are still in use."""
    n, batch = 40 * 1024, 100
    acts = torch.arange(n, dtype=torch.float32)[:, None].repeat(1, 2)
    big = write_store(
        tmp_path, {HOOK: acts}, np.arange(n) // 1024, documents=[f"d{i}" for i in range(40)]
    )
    n_train = big.n_kept(HOOK, "train")
    live: dict[int, int] = {}
    reads: list[int] = []
    most = [0]
    original = ActivationStore._read

    def counted(self, hook, indices, *into):
        rows = original(self, hook, indices, *into)
        storage = rows.untyped_storage()
        if storage.data_ptr() not in live:
            live[storage.data_ptr()] = storage.nbytes() // (4 * 2)
            weakref.finalize(into[0] if into else rows, live.pop, storage.data_ptr())
        most[0] = max(most[0], sum(live.values()))
        reads.append(len(indices))
        return rows

    monkeypatch.setattr(ActivationStore, "_read", counted)
    for share in (0.25, 0.1, 1e-9):
        most[0] = 0
        options = {"epochs": 2, "buffer_share": share}
        found = ids(big.iter_batches(HOOK, batch, generator=rng(), **options))
        assert len(found) == 2 * n_train
        assert len(set(found[:n_train])) == n_train
        assert not live
        assert most[0] <= max(share * n_train, 1024)
    # Whole, it is read once and stays for the second epoch.
    reads.clear()
    assert len(ids(big.iter_batches(HOOK, batch, generator=rng(), epochs=2))) == 2 * n_train
    assert reads == [n_train]


def test_a_small_buffer_still_mixes(tmp_path):
    n = 40 * 1024
    acts = torch.arange(n, dtype=torch.float32)[:, None]
    big = write_store(
        tmp_path, {HOOK: acts}, np.arange(n) // 1024, documents=[f"d{i}" for i in range(40)]
    )
    correlations, neighbours = [], []
    for seed in range(8):
        options = {"epochs": 1, "buffer_share": 0.25}
        found = np.array(ids(big.iter_batches(HOOK, 64, generator=rng(seed), **options)))
        correlations.append(spearmanr(np.arange(len(found)), found).statistic)
        neighbours.append(np.mean(found[1:] // 1024 == found[:-1] // 1024))
    # 36 chunks in random order, so one order's correlation has standard deviation 0.17.
    assert abs(np.mean(correlations)) < 0.2
    assert max(map(abs, correlations)) < 0.6
    # Nine chunks share a buffer, so a ninth of the neighbours come from one chunk.
    assert np.mean(neighbours) < 0.2


def test_share_of_the_buffer_is_checked(store):
    for share in (0, -1, 1.5):
        with pytest.raises(ConfigError, match="buffer_share"):
            store.iter_batches(HOOK, 8, generator=rng(), buffer_share=share)


def test_masked_rows_are_there_when_asked_for(store):
    found = ids(
        store.iter_batches(HOOK, 64, generator=rng(), part="all", kept_only=False, epochs=1)
    )
    assert sorted(found) == list(range(N))


def test_heldout_rows_are_whole_documents(store):
    rows = store.heldout(HOOK)
    assert set(rows.acts[:, 0].int().tolist()) == expected(store, "heldout")
    assert rows.keep.all()
    every = store.heldout(HOOK, kept_only=False)
    assert len(every) > len(rows)
    assert not every.keep.all()
    some = store.heldout(HOOK, 70, kept_only=False)
    assert len(some) == 70
    assert set(some.doc) <= set(every.doc)
    for doc in sorted(set(some.doc))[:-1]:
        assert (some.doc == doc).sum() == (every.doc == doc).sum()


def test_token_windows_give_the_tokens_back(store):
    _, doc = planted()
    found = store.token_windows("all")
    assert [t for w in found for t in w.token_ids] == (np.arange(N) % 50).tolist()
    assert [w.doc_index for w in found] == sorted(set(doc.tolist()))
    marks = held_out(DOCUMENTS)
    part = store.token_windows("heldout", max_tokens=60)
    assert all(marks[w.doc_index] for w in part)
    assert 60 <= sum(len(w.token_ids) for w in part) < 200


@pytest.mark.parametrize(
    ("storage", "error"), [("float32", 0), ("float16", 2**-11), ("bfloat16", 2**-8)]
)
def test_storage_formats_round_as_they_should(tmp_path, storage, error):
    acts, _ = planted()
    store = fresh(tmp_path / "s", storage=storage)
    back = store.rows(HOOK).acts
    assert ((back - acts).abs() <= error * acts.abs() + 1e-7).all()
    assert torch.equal(back, acts.to(getattr(torch, storage)).float())
    with h5py.File(tmp_path / "s" / "shard-00000.h5") as file:
        assert file[f"resid/{HOOK}"].attrs["encoding"] == storage
        assert file[f"resid/{HOOK}"].fletcher32


def test_equal_rows_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        fresh(tmp_path / name)
    for file in ("shard-00000.h5", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_half_precision_range():
    with pytest.raises(
        ConfigError, match=r"here: the activation 70,000 does not fit into float16.*bfloat16"
    ):
        to_storage(torch.tensor([[1.0, -70_000.0]]), "float16", "here")
    assert to_storage(torch.tensor([[65_504.0]]), "float16", "here").item() == 65_504
    assert to_storage(torch.tensor([[70_000.0]]), "bfloat16", "here").dtype == torch.bfloat16
    for bad in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ModelError, match="not finite"):
            to_storage(torch.tensor([[1.0, bad]]), "float32", "here")


def test_no_store_and_other_files(tmp_path):
    with pytest.raises(ArtifactError, match="holds no finished activation store"):
        ActivationStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ArtifactError, match="not the manifest"):
        ActivationStore.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format version 99; this release reads 1"),
        ({"hooks": None}, "lacks hooks"),
        ({"format": "other"}, "not the manifest"),
    ],
)
def test_manifests_of_other_versions_are_refused(tmp_path, change, message):
    fresh(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text()) | change
    path.write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))
    with pytest.raises(ArtifactError, match=message):
        ActivationStore.open(tmp_path)


def test_truncated_and_missing_shards_are_noticed_on_opening(tmp_path):
    fresh(tmp_path)
    shard = tmp_path / "shard-00000.h5"
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    with pytest.raises(
        ArtifactError, match=r"shard-00000\.h5 has .* bytes where the manifest says"
    ):
        ActivationStore.open(tmp_path)
    shard.unlink()
    with pytest.raises(ArtifactError, match=r"shard-00000\.h5 is missing"):
        ActivationStore.open(tmp_path)


def test_changed_bytes_are_noticed_by_hash_and_by_checksum(tmp_path):
    acts, _ = planted()
    fresh(tmp_path).close()
    shard = tmp_path / "shard-00000.h5"
    content = bytearray(shard.read_bytes())
    at = bytes(content).find(acts[1500].numpy().tobytes())
    content[at] ^= 1
    shard.write_bytes(content)
    store = ActivationStore.open(tmp_path)
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        ActivationStore.open(tmp_path, verify=True)
    assert len(store.rows(HOOK, 0, 1000)) == 1000
    with pytest.raises(ArtifactError, match="damaged or changed"):
        store.rows(HOOK, 1000, 2000)
    store.close()


def test_unknown_names_and_sizes(store):
    with pytest.raises(ArtifactError, match=r"no hook 'blocks\.9.*it holds blocks\.1"):
        store.rows("blocks.9.hook_resid_post")
    with pytest.raises(ConfigError, match="unknown part 'test'"):
        store.iter_batches(HOOK, 8, generator=rng(), part="test")
    with pytest.raises(ConfigError, match="batch_size 0"):
        store.iter_batches(HOOK, 0, generator=rng())


def test_a_single_document_cannot_be_held_out(tmp_path):
    store = write_store(tmp_path, {HOOK: torch.ones(5, 4)}, [0] * 5, documents=["a"])
    with pytest.raises(ArtifactError, match="no document in the part 'heldout'"):
        store.heldout(HOOK)
    assert len(next(store.iter_batches(HOOK, 8, generator=rng(), epochs=1))) == 4


def test_nothing_kept_is_an_error(tmp_path):
    rule = MaskRule(norm_limit=0.5)
    store = write_store(
        tmp_path, {HOOK: torch.ones(6, 4)}, [0, 0, 0, 1, 1, 1], documents=["a", "b"], rule=rule
    )
    assert store.n_kept(HOOK) == 0
    with pytest.raises(ArtifactError, match="no row"):
        store.iter_batches(HOOK, 8, generator=rng())
    with pytest.raises(ArtifactError, match="no content token"):
        store.heldout(HOOK)


def test_writing_over_a_store_or_beside_a_writer_is_refused(tmp_path):
    fresh(tmp_path / "s")
    with pytest.raises(ArtifactError, match="already holds a store"):
        fresh(tmp_path / "s")
    with folder_lock(tmp_path / "t"), pytest.raises(MachineError, match="written by another run"):
        fresh(tmp_path / "t")
    acts, doc = planted()
    with pytest.raises(ArtifactError, match="all need the same"):
        write_store(tmp_path / "u", {HOOK: acts[1:]}, doc, documents=DOCUMENTS)
    with pytest.raises(ArtifactError, match="must lie in 0 to 9"):
        write_store(tmp_path / "u", {HOOK: acts}, doc, documents=DOCUMENTS[:10])
    with pytest.raises(ArtifactError, match="ascending"):
        write_store(tmp_path / "u", {HOOK: acts}, doc[::-1], documents=DOCUMENTS)


def test_many_shards_need_few_open_files(tmp_path):
    store = fresh(tmp_path, rows_per_shard=40)
    with store:
        assert (
            len(ids(store.iter_batches(HOOK, 64, generator=rng(), epochs=1, buffer_chunks=1)))
            > 2000
        )
        assert len(store._files) <= 64
    assert store._files == {}
