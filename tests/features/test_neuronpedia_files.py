"""Neuronpedia's export form: the lines, what hostile tokens become, and equal bytes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectlens.data.errors import ConfigError
from affectlens.features.contexts import ContextGroup
from affectlens.features.logit_lens import Lens, TokenLogit
from affectlens.features.naming import EmotionWords, FeatureName, FeatureNames
from affectlens.features.neighbours import Neighbour
from affectlens.features.neuronpedia_files import slug, source_of, write_feature_files
from affectlens.features.results import Context
from affectlens.features.token_profile import Density, TokenProfile

HOSTILE = ["</script>", "{{x}}", "\u202e", "\ud800", "\x1b[31m", "\x00"]


def names() -> FeatureNames:
    def group(low: float, high: float, values: list[float], tokens: list[str]) -> ContextGroup:
        peak = values.index(max(values))
        return ContextGroup(7, low, high, 4, 0.4, (Context(7, f"d{low}", 3, peak, tokens, values),))

    one = FeatureName(
        feature=7,
        firing_rate=0.01,
        max_active=4.0,
        density=Density((0.0, 1.0), (10,)),
        groups=(
            group(2.0, 4.0, [0.0, 4.0], [" so", " sad"]),
            group(0.0, 2.0, [1.0, 0, 0, 0, 0, 0], HOSTILE),
        ),
        tokens=TokenProfile(10, 3, 1.0, 2.0, 3.0, ()),
        emotion_mass=0.2,
        lens=Lens((TokenLogit(1, " tears", 2.5),), (TokenLogit(2, " joy", -1.5),)),
        emotions=(EmotionWords("grief", "evokes", 0.1, 0.6, 1.0, 0.2, 9),),
        nearest_decoder=(Neighbour(3, 0.5),),
        nearest_cofiring=(),
    )
    hook = "blocks.15.hook_resid_post"
    return FeatureNames((one,), "Org/Some_Model-Instruct", hook, "s", 100, 1, 0.1, "l", "n",
                        centred=False, n_reference=9)  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    text = gzip.decompress(raw) if path.suffix == ".gz" else raw
    return [json.loads(line) for line in text.decode("ascii").splitlines()]


def test_the_lines(tmp_path: Path) -> None:
    source = source_of(names(), identity=None, release="My run", created="2026-01-01")
    assert (source.model_id, source.source_id) == ("some-model-instruct", "15-my-run")
    assert write_feature_files(names(), source, tmp_path) == 1
    (feature,) = lines(tmp_path / "features/batch-0.jsonl.gz")
    assert (feature["modelId"], feature["layer"], feature["index"]) == (
        "some-model-instruct",
        "15-my-run",
        "7",
    )
    assert (feature["maxActApprox"], feature["frac_nonzero"]) == (4.0, 0.01)
    assert (feature["pos_str"], feature["neg_values"]) == ([" tears"], [-1.5])
    assert feature["freq_hist_data_bar_values"] == [1.0, 3.0]
    assert (feature["topkCosSimIndices"], feature["topkCosSimValues"]) == ([3], [0.5])
    strong, weak = lines(tmp_path / "activations/batch-0.jsonl.gz")
    assert (strong["maxValue"], strong["maxValueTokenIndex"], strong["minValue"]) == (4.0, 1, 0.0)
    assert (strong["binMin"], strong["binMax"], strong["binContains"]) == (2.0, 4.0, 0.4)
    assert weak["tokens"] == HOSTILE
    assert len({strong["id"], weak["id"]}) == 2
    (about,) = lines(tmp_path / "source.jsonl")
    assert (about["id"], about["setName"], about["visibility"]) == (
        "15-my-run",
        "my-run",
        "UNLISTED",
    )
    assert [lines(tmp_path / f"{n}.jsonl")[0]["name"] for n in ("release", "sourceset")] == [
        "my-run",
        "my-run",
    ]


def test_equal_bytes_and_public_names(tmp_path: Path) -> None:
    source = source_of(names(), identity="gpt2-small/8-res-jb", release="x", created="c")
    assert (source.model_id, source.source_id, source.set_name) == (
        "gpt2-small",
        "8-res-jb",
        "res-jb",
    )
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_feature_files(names(), source, tmp_path / folder)
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    for identity in ("gpt2", "a/b/c", "/b"):
        with pytest.raises(ConfigError, match="model/source"):
            source_of(names(), identity=identity, release="x", created="c")


@given(st.text())
def test_names_are_safe_in_paths(text: str) -> None:
    try:
        made = slug(text)
    except ConfigError:
        return
    assert made
    assert not set(made) - set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert made[0] not in ".-" and len(made) <= 60
