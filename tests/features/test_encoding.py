"""Sparse token activations: what fits together, and a file that is right or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectlens.data.errors import ArtifactError, StimulusError
from affectlens.features.encoding import Reading, TokenActivations

D_SAE = 7


def from_dense(
    dense: np.ndarray, lengths: list[int], keep: np.ndarray | None = None, **more: object
) -> TokenActivations:
    """Token activations of dense values [n_tokens, d_sae]."""
    keep = np.ones(len(dense), dtype=bool) if keep is None else keep
    dense = np.where(keep[:, None], dense, 0).astype(np.float32)
    fields: dict[str, object] = {
        "hook_name": "blocks.1.hook_resid_post",
        "sae_sha256": "ab" * 32,
        "d_sae": dense.shape[1],
        "reading": Reading(suffix=" The end.", name="suffix"),
        "item_ids": tuple(f"item-{i}" for i in range(len(lengths))),
        "first": np.cumsum([0, *lengths]).astype(np.int64),
        "tokens": np.arange(100, 100 + len(dense), dtype=np.int32),
        "keep": keep,
        "n_tail": 1,
        "indptr": np.cumsum([0, *(dense != 0).sum(1)]).astype(np.int64),
        "latents": np.nonzero(dense)[1].astype(np.int32),
        "values": dense[dense != 0],
    }
    return TokenActivations(**{**fields, **more})  # type: ignore[arg-type]


def drawn(seed: int = 0, density: float = 0.3) -> TokenActivations:
    rng = np.random.default_rng(seed)
    lengths = [4, 2, 5]
    dense = rng.normal(size=(11, D_SAE)) * (rng.random((11, D_SAE)) < density)
    keep = np.ones(11, dtype=bool)
    keep[[0, 4, 6]] = False
    return from_dense(dense, lengths, keep)


def same(a: TokenActivations, b: TokenActivations) -> bool:
    return all(
        np.array_equal(x, b.__dict__[name])
        and getattr(x, "dtype", None) == getattr(b.__dict__[name], "dtype", None)
        for name, x in a.__dict__.items()
    )


def test_the_matrix_holds_every_value_at_its_place() -> None:
    dense = np.array([[0, 1.5, 0], [2, 0, -3], [0, 0, 0]], dtype=np.float32)
    encoded = from_dense(dense, [2, 1])
    assert np.array_equal(encoded.matrix().toarray(), dense)
    assert encoded.matrix().dtype == np.float32
    assert encoded.items().tolist() == [0, 0, 1] and encoded.positions().tolist() == [0, 1, 0]


def test_content_is_what_lies_between_prefix_and_suffix() -> None:
    encoded = from_dense(np.ones((9, 2)), [4, 5], n_head=1, n_tail=2)
    assert encoded.tail().astype(int).tolist() == [0, 0, 1, 1, 0, 0, 0, 1, 1]
    assert encoded.content().astype(int).tolist() == [0, 1, 0, 0, 0, 1, 1, 0, 0]
    bare = from_dense(np.ones((3, 2)), [3], n_tail=0)
    assert bare.content().all() and not bare.tail().any()


def test_one_item_alone_is_its_part() -> None:
    encoded = drawn()
    rows = encoded.matrix().toarray()
    for i, name in enumerate(encoded.item_ids):
        one, at = encoded.item(name), slice(encoded.first[i], encoded.first[i + 1])
        assert one.item_ids == (name,) and one.reading == encoded.reading
        assert np.array_equal(one.matrix().toarray(), rows[at])
        assert np.array_equal(one.tokens, encoded.tokens[at])
        assert np.array_equal(one.keep, encoded.keep[at])
    with pytest.raises(StimulusError, match=r"no item 'item-9'.*did you mean 'item-"):
        encoded.item("item-9")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {"values": e.values.astype(np.float64)}, "values is not .* float32"),
        (lambda e: {"item_ids": ("a", "a", "b")}, "distinct ids"),
        (lambda e: {"item_ids": ()}, "at least one"),
        (lambda e: {"first": np.array([0, 4, 4, 11])}, "items of one or more"),
        (lambda e: {"first": np.array([0, 4, 6, 10])}, "first does not divide"),
        (lambda e: {"n_tail": 3}, "shorter than the shared"),
        (lambda e: {"keep": e.keep[1:]}, "keep has 10 tokens"),
        (lambda e: {"keep": np.zeros_like(e.keep)}, "mask leaves out has entries"),
        (lambda e: {"indptr": e.indptr[:-1]}, "indptr does not divide"),
        (lambda e: {"latents": e.latents[:-1]}, "indptr does not divide"),
        (lambda e: {"d_sae": 3}, "not 0 to 2"),
        (lambda e: {"latents": e.latents[::-1].copy()}, "do not rise"),
        (lambda e: {"values": np.where(e.values > 0, np.nan, e.values)}, "0, infinite or NaN"),
        (lambda e: {"values": np.zeros_like(e.values)}, "0, infinite or NaN"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    change: Callable[[TokenActivations], dict[str, object]], message: str
) -> None:
    encoded = drawn()
    with pytest.raises(ArtifactError, match=message):
        replace(encoded, **change(encoded))


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, seed: int, density: float
) -> None:
    encoded = drawn(seed, density)
    path = tmp_path_factory.getbasetemp() / "sub" / "round.h5"
    assert encoded.write(path) == path
    assert same(TokenActivations.read(path), encoded)


def test_equal_content_gives_equal_bytes_and_nothing_is_left_beside(tmp_path: Path) -> None:
    a, b = drawn().write(tmp_path / "a.h5"), drawn().write(tmp_path / "b.h5")
    assert a.read_bytes() == b.read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"a.h5", "b.h5"}


def test_ids_and_prompts_of_any_character_survive(tmp_path: Path) -> None:
    encoded = replace(
        drawn(),
        item_ids=("Kummer", "\u60b2\u3057\u307f\x00", 'q"\\\n'),
        reading=Reading("a\x00\n", "\u00e9", "n\x00"),
    )
    assert same(TokenActivations.read(encoded.write(tmp_path / "a.h5")), encoded)


def test_no_entry_at_all_is_a_file_too(tmp_path: Path) -> None:
    encoded = drawn(density=0)
    assert len(encoded.values) == 0
    assert same(TokenActivations.read(encoded.write(tmp_path / "a.h5")), encoded)


def test_datasets_carry_checksums_and_are_deflated(tmp_path: Path) -> None:
    with h5py.File(drawn().write(tmp_path / "a.h5")) as file:
        assert sorted(file) == sorted(
            ["item_ids", "first", "tokens", "keep", "indptr", "latents", "values"]
        )
        assert all(file[name].fletcher32 and file[name].compression == "gzip" for name in file)
        assert file.attrs["format_version"] == 1 and file.attrs["d_sae"] == D_SAE


def test_every_part_of_a_file_is_refused(tmp_path: Path) -> None:
    path = drawn().write(tmp_path / "a.h5")
    content = path.read_bytes()
    path.write_bytes(content + b"\0")
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        TokenActivations.read(path)
    with path.open("r+b") as handle:
        for size in reversed(range(len(content))):
            handle.truncate(size)
            with pytest.raises(ArtifactError, match="cut short"):
                TokenActivations.read(path)


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    content = bytearray(drawn().write(tmp_path / "a.h5").read_bytes())
    path = tmp_path / "b.h5"
    # Every byte of the leading block, and of what its hash covers a share.
    for offset in [*range(520), *range(520, len(content), 17), len(content) - 1]:
        content[offset] ^= 0xFF
        path.write_bytes(content)
        content[offset] ^= 0xFF
        with pytest.raises(ArtifactError, match=r"b\.h5"):
            TokenActivations.read(path)


def test_foreign_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(ArtifactError, match="does not exist"):
        TokenActivations.read(path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        TokenActivations.read(tmp_path)
    path.write_text("item_id,latent\n")
    with pytest.raises(ArtifactError, match="not a file of token activations"):
        TokenActivations.read(path)
    with h5py.File(path, "w") as file:
        file["values"] = np.zeros(3)
    with pytest.raises(ArtifactError, match="not a file of token activations"):
        TokenActivations.read(path)
    content = drawn().write(path).read_bytes()
    path.write_bytes(content.replace(b"version 1", b"version 2"))
    with pytest.raises(ArtifactError, match="format version '2'; this release reads 1"):
        TokenActivations.read(path)


def sealed(path: Path) -> Path:
    """Give a file that was changed the hash of its present content."""
    content = path.read_bytes()
    old = content.split(b"SHA-256 ")[1][:64]
    path.write_bytes(content.replace(old, hashlib.sha256(content[512:]).hexdigest().encode(), 1))
    return path


@pytest.mark.parametrize("name", ["values", "item_ids", "first"])
def test_an_absent_or_foreign_array_is_refused(tmp_path: Path, name: str) -> None:
    path = drawn().write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file[name]
    with pytest.raises(ArtifactError, match=r"a\.h5 is damaged: .*doesn't exist"):
        TokenActivations.read(sealed(path))
    with h5py.File(path, "r+") as file:
        file[name] = np.zeros((2, 2))
    with pytest.raises(ArtifactError, match=f"damaged: {name} is float64"):
        TokenActivations.read(sealed(path))


def test_arrays_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    path = drawn().write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["latents"][0] = D_SAE
    with pytest.raises(ArtifactError, match=r"a\.h5 is damaged: .*latents lie in"):
        TokenActivations.read(sealed(path))
    with h5py.File(drawn().write(path), "r+") as file:
        file.attrs["reading"] = "{"
    with pytest.raises(ArtifactError, match=r"a\.h5 is damaged"):
        TokenActivations.read(sealed(path))


def test_a_million_latents_cost_what_their_entries_cost(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n_items, n_tokens, active, d_sae = 480, 20, 32, 1_000_000
    n = n_items * n_tokens
    # Distinct rising latents of each token: one from each of `active` equal parts.
    step = d_sae // active
    latents = rng.integers(0, step, size=(n, active)) + step * np.arange(active)
    encoded = TokenActivations(
        hook_name="blocks.1.hook_resid_post",
        sae_sha256="00",
        d_sae=d_sae,
        reading=Reading(),
        item_ids=tuple(map(str, range(n_items))),
        first=np.arange(n_items + 1, dtype=np.int64) * n_tokens,
        tokens=rng.integers(0, 50_000, n).astype(np.int32),
        keep=np.ones(n, dtype=bool),
        n_tail=0,
        indptr=np.arange(n + 1, dtype=np.int64) * active,
        latents=latents.ravel().astype(np.int32),
        values=rng.random(n * active).astype(np.float32) + np.float32(0.5),
    )
    path = encoded.write(tmp_path / "wide.h5")
    assert path.stat().st_size < 8 * n * active + 13 * n
    assert same(TokenActivations.read(path), encoded)
    assert encoded.matrix().shape == (n, d_sae)
