"""Steering vectors: what they are made of, their files, and the edit that comes back from them."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import struct
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.data.models import LanguageModel
from affectlens.features.control_vector_gguf import read_control_vector, utf8
from affectlens.features.controls import difference_of_means, pair_means, probe_direction
from affectlens.features.interventions import applied
from affectlens.features.selection import FeatureSet
from affectlens.features.steering_vector import (
    SteeringVector,
    VectorOrigin,
    vector_of_features,
    vector_of_pairs,
)
from affectlens.features.vector_files import gguf_layer, read_vectors, write_vector

from .made_pairs import make_pairs
from .made_saes import topk_sae, unit_rows

TEXTS = ["The day began like any other.", "Rain."]
FORMS = (".gguf", ".safetensors")
VALUES = np.random.default_rng(0).standard_normal(32).astype(np.float32)


def vector(hook: str = "blocks.2.hook_resid_post", **origin: Any) -> SteeringVector:
    return SteeringVector(VALUES, hook, "grief", VectorOrigin(**origin), 12.5)


def by_hand(layers: dict[int, np.ndarray], *, extra: bytes = b"", n_extra: int = 0) -> bytes:
    """A control vector laid out byte by byte, after the GGUF specification."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    keys = text("general.architecture") + struct.pack("<I", 8) + text("controlvector")
    keys += text("controlvector.model_hint") + struct.pack("<I", 8) + text("llama")
    keys += text("controlvector.layer_count") + struct.pack("<Ii", 5, len(layers)) + extra
    infos, data = b"", b""
    for n, row in layers.items():
        infos += text(f"direction.{n}") + struct.pack("<IQIQ", 1, len(row), 0, len(data))
        data += row.astype("<f4").tobytes() + b"\0" * (-4 * len(row) % 32)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(layers), 3 + n_extra) + keys + infos
    return head + b"\0" * (-len(head) % 32) + data


@contextlib.contextmanager
def as_llama_cpp(lm: LanguageModel, directions: dict[int, np.ndarray]) -> Iterator[None]:
    """Add direction.N to the output of block N, counted from 0, at every token."""

    def adding(row: np.ndarray):  # type: ignore[no-untyped-def]
        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (output[0] + torch.from_numpy(row), *output[1:])
            return output + torch.from_numpy(row)

        return hook

    handles = [lm.blocks[n].register_forward_hook(adding(r)) for n, r in directions.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def test_the_files_keys_as_the_package_reads_them(tmp_path: Path) -> None:
    path = write_vector(vector(model_type="llama", licence="mit"), tmp_path / "a.gguf")
    reader = gguf.GGUFReader(path)
    keys = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert keys["general.architecture"] == "controlvector"
    assert keys["controlvector.model_hint"] == "llama"
    assert keys["controlvector.layer_count"] == 1
    assert keys["general.license"] == "mit"
    ((name, row, kind),) = [(t.name, t.data, t.tensor_type.name) for t in reader.tensors]
    assert (name, kind) == ("direction.2", "F32")
    np.testing.assert_array_equal(row, VALUES)


def test_files_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "repeng.gguf"
    path.write_bytes(by_hand({3: VALUES, 1: 2 * VALUES}))
    assert {t.name for t in gguf.GGUFReader(path).tensors} == {"direction.1", "direction.3"}
    first, second = read_vectors(path)
    assert (first.hook_name, second.hook_name) == (
        "blocks.1.hook_resid_post",
        "blocks.3.hook_resid_post",
    )
    assert first.origin == VectorOrigin(model_type="llama")
    np.testing.assert_array_equal(first.values, 2 * VALUES)


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_read_back_it_makes_the_edit_that_llama_cpp_makes(
    tiny_llama: LanguageModel, tmp_path: Path, layer: int, form: str
) -> None:
    hook = f"blocks.{layer}.hook_resid_post"
    sae = topk_sae(tiny_llama, unit_rows(64, 32), hook=hook)
    made = vector_of_features([3, 9], sae, length=4.0)
    (back,) = read_vectors(write_vector(made, tmp_path / f"v{form}"))
    batch = tiny_llama.encode(TEXTS)
    with applied(tiny_llama, sae, [made.spec(0.5)], scope="all"):
        wanted = tiny_llama.forward_logits(batch)
    with applied(tiny_llama, sae, [back.spec(0.5)], scope="all"):
        got = tiny_llama.forward_logits(batch)
    assert torch.equal(got, wanted)
    with as_llama_cpp(tiny_llama, {layer: 0.5 * back.values}):
        theirs = tiny_llama.forward_logits(batch)
    torch.testing.assert_close(theirs, wanted, atol=1e-6, rtol=0)
    with as_llama_cpp(tiny_llama, {layer - 1: 0.5 * back.values}):
        assert (tiny_llama.forward_logits(batch) - wanted).abs().max() > 1e-3


def test_layer_numbers() -> None:
    assert gguf_layer("blocks.1.hook_resid_post") == 1
    assert gguf_layer("blocks.29.hook_resid_post") == 29
    assert gguf_layer("blocks.8.hook_resid_pre") == 7
    for hook in ("blocks.0.hook_resid_post", "blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"):
        with pytest.raises(ConfigError, match="output of block N for N from 1 on"):
            gguf_layer(hook)


@pytest.mark.parametrize("form", FORMS)
def test_round_trip_keeps_everything(tmp_path: Path, form: str) -> None:
    whole = vector(
        "blocks.2.hook_resid_pre",
        made_by="features",
        emotion="grief",
        features=(3, 9),
        weights=(1.0, 0.25),
        chosen_by="discovery score",
        model_fingerprint="ab",
        licence="mit",
    )
    (back,) = read_vectors(write_vector(whole, tmp_path / f"v{form}"))
    assert (back.hook_name, back.name, back.residual_norm) == (whole.hook_name, "grief", 12.5)
    assert back.origin == whole.origin
    assert back.sha256 == whole.sha256


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.text(max_size=30), licence=st.text(max_size=10), form=st.sampled_from(FORMS))
def test_any_name_comes_back(tmp_path: Path, name: str, licence: str, form: str) -> None:
    made = SteeringVector(VALUES, 2, name, VectorOrigin(licence=licence))  # type: ignore[arg-type]
    (back,) = read_vectors(write_vector(made, tmp_path / f"n{form}", force=True))
    assert (back.name, back.origin.licence) == (utf8(name), licence)


@pytest.mark.parametrize("form", FORMS)
def test_every_cut_and_flipped_byte_is_noticed(tmp_path: Path, form: str) -> None:
    made = SteeringVector(VALUES[:8], "blocks.2.hook_resid_post", "grief")
    whole = write_vector(made, tmp_path / f"v{form}").read_bytes()
    path = tmp_path / f"broken{form}"
    for n in range(0, len(whole) - 1, 11):
        path.write_bytes(whole[:n])
        with pytest.raises(ArtifactError):
            read_vectors(path)
    flips = random.Random(0)
    for at in range(0, len(whole), 5):
        broken = bytearray(whole)
        broken[at] ^= 1 << flips.randrange(8)
        path.write_bytes(bytes(broken))
        with contextlib.suppress(ArtifactError):
            assert read_vectors(path)[0].sha256 == made.sha256


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GGML" + bytes(60), "GGUF"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 1, 2**60), "at most 4096"),
        (struct.pack("<4sIQQ", b"GGUF", 9, 1, 1), "version 9"),
        (by_hand({0: VALUES}), "no place in a control vector"),
        (by_hand({}), "0 directions"),
        (by_hand({1: VALUES, 2: VALUES[:8]}), "2 widths"),
        (by_hand({1: np.full(4, np.nan, np.float32)}), "finite"),
        (by_hand({1: np.zeros(4, np.float32)}), "zero"),
        # An array that claims more texts than the file has bytes.
        (
            by_hand(
                {1: VALUES},
                extra=struct.pack("<Q1sIIQ", 1, b"x", 9, 8, 2**60),
                n_extra=1,
            ),
            "an array of",
        ),
    ],
)
def test_hostile_files(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    start = time.process_time()
    with pytest.raises(ArtifactError, match=said):
        read_vectors(path)
    assert time.process_time() - start < 1


def test_a_record_that_does_not_fit(tmp_path: Path) -> None:
    path = write_vector(vector(), tmp_path / "a.gguf")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"direction.2", b"direction.3"))
    with pytest.raises(ArtifactError, match=r"direction\.3 does not fit"):
        read_vectors(path)
    changed = bytearray(data)
    changed[-1] ^= 1
    path.write_bytes(bytes(changed))
    with pytest.raises(ArtifactError, match="does not hold the numbers"):
        read_vectors(path)
    model = tmp_path / "model.gguf"
    model.write_bytes(data.replace(b"controlvector", b"controlvectoR", 1))
    with pytest.raises(ArtifactError, match="no control vector"):
        read_control_vector(model)


def test_writing_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "a.gguf", tmp_path / "a.safetensors"):
        write_vector(vector(), path)
        with pytest.raises(ConfigError, match="force=True"):
            write_vector(vector(), path)
        write_vector(vector(), path, force=True)
    (tmp_path / "b.json").touch()
    with pytest.raises(ConfigError, match=r"b\.json is there already"):
        write_vector(vector(), tmp_path / "b.safetensors")
    with pytest.raises(ConfigError, match="must end in"):
        write_vector(vector(), tmp_path / "a.pt")
    with pytest.raises(ConfigError, match="cannot be written as GGUF"):
        write_vector(vector("blocks.0.hook_resid_post"), tmp_path / "c.gguf")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.gguf", "a.json", "a.safetensors", "b.json",
    ]  # fmt: skip


@pytest.mark.parametrize("bad", [[math.nan, 1.0], [math.inf, 1.0], [0.0, 0.0], [[1.0]], [1e40]])
def test_no_vector_of_bad_numbers(bad: Any) -> None:
    with pytest.raises(ConfigError):
        SteeringVector(bad, "blocks.2.hook_resid_post", "x")


def test_what_a_vector_of_features_is(tiny_llama: LanguageModel) -> None:
    sae = topk_sae(tiny_llama, 3 * unit_rows(64, 32))
    rows = sae.W_dec.double().numpy()
    one = vector_of_features([5, 7], sae, length="unit")
    summed = rows[5] / 3 + rows[7] / 3
    np.testing.assert_allclose(one.values, summed / np.linalg.norm(summed), atol=1e-6)
    assert one.norm == pytest.approx(1)
    heavy = vector_of_features([5, 7], sae, weights=[2.0, 0.5], length="sum")
    np.testing.assert_allclose(heavy.values, 2 * rows[5] + 0.5 * rows[7], atol=1e-6)
    acts = torch.ones(6, 32) * torch.arange(1.0, 7)[:, None]
    store: Any = SimpleNamespace(
        hook_names=["blocks.1.hook_resid_post"],
        heldout=lambda hook, n: SimpleNamespace(acts=acts),
    )
    long = vector_of_features([5], sae, store)
    assert long.residual_norm == pytest.approx(math.sqrt(32) * 3.5, rel=1e-6)
    assert long.norm == pytest.approx(long.residual_norm, rel=1e-6)
    assert "residual" in long.origin.length
    store.hook_names = ["blocks.3.hook_resid_post"]
    with pytest.raises(ConfigError, match="harvest that place"):
        vector_of_features([5], sae, store)


def test_vectors_of_features_that_are_refused(tiny_llama: LanguageModel) -> None:
    rows = unit_rows(64, 32)
    rows[1] = -rows[0]
    sae = topk_sae(tiny_llama, rows)
    chosen = FeatureSet("grief", (3,), {}, pd.DataFrame(), "by rank", "0" * 64)
    for features, more, said in (
        ([], {}, "at least one"),
        ([64], {}, "0 to 63"),
        ([3, 3], {}, "twice"),
        ([0, 1], {"length": "unit"}, "cancel"),
        ([3], {}, "store"),
        ([3], {"length": "sum"}, "weights"),
        ([3], {"length": "long"}, "unknown"),
        ([3], {"length": -1.0}, "positive"),
        ([3], {"length": math.nan}, "positive"),
        ([3], {"weights": [1.0, 2.0], "length": "sum"}, "one for each"),
        (chosen, {"length": "unit"}, "another SAE"),
    ):
        with pytest.raises(ConfigError, match=said):
            vector_of_features(features, sae, **more)
    ours = replace(chosen, sae_sha256=sae.info.sha256)
    found = vector_of_features(ours, sae, length="unit")
    assert (found.name, found.origin.chosen_by) == ("grief", "by rank")
    scaled = topk_sae(tiny_llama, rows, norm="layer_norm")
    with pytest.raises(ConfigError, match="depends on the token"):
        vector_of_features([3], scaled, weights=[1.0], length="sum")


def test_vectors_of_pairs(tiny_llama: LanguageModel) -> None:
    sae, battery = topk_sae(tiny_llama, unit_rows(64, 32)), make_pairs(4, 1)
    parts = {c: "confirmation" if c.endswith("1") else "discovery" for c in battery.clusters}
    found: Any = SimpleNamespace(parts=parts)
    pairs = [p for p in battery.pairs if parts[p.cluster] == "discovery"]
    assert 0 < len(pairs) < len(battery.pairs)
    means = pair_means(tiny_llama, sae, battery, pairs)
    for method, fitted in (("diff_of_means", difference_of_means), ("probe", probe_direction)):
        made = vector_of_pairs(
            tiny_llama, sae, battery, found, "grief", method=method, length="unit"
        )
        np.testing.assert_allclose(made.values, fitted(means, "grief"), atol=1e-6)
        assert (made.origin.made_by, made.origin.model_type) == (method, "llama")
    with pytest.raises(ConfigError, match="no discovery pair"):
        vector_of_pairs(tiny_llama, sae, battery, found, "joy", length="unit")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked writer")
def test_killed_at_any_moment_a_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    made = [SteeringVector(s * VALUES, "blocks.2.hook_resid_post", str(s)) for s in (1, 2)]
    files = [tmp_path / "v.gguf", tmp_path / "v.safetensors"]
    for path in files:
        write_vector(made[0], path)
    rng, n_changed, before = random.Random(0), 0, ["1", "1"]
    for _ in range(15):
        told, tell = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                for step in range(1, 1000):
                    for path in files:
                        write_vector(made[step % 2], path, force=True)
                    os.write(tell, b".")
            os._exit(0)
        assert os.read(told, 1) == b"."  # it is at work
        os.close(told)
        os.close(tell)
        time.sleep(rng.uniform(0.005, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        names = [read_vectors(path)[0].name for path in files]
        assert set(names) <= {"1", "2"}
        n_changed += names != before
        before = names
    assert n_changed, "no kill met a writer at work"
