"""Names of latents on a tiny model with planted latents, and their file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sae_lens
import torch

from affectlens.data.emotion_lexicon import own_lexicon
from affectlens.data.errors import ArtifactError, ConfigError
from affectlens.data.models import LanguageModel
from affectlens.data.store import Rows
from affectlens.data.tiny import tiny_model
from affectlens.features.logit_lens import unembedding, word_token_ids
from affectlens.features.naming import (
    DETECTS_MASS,
    NAMES_AUROC,
    NAMES_P,
    FeatureNames,
    kind_of,
    name_features,
)
from affectlens.features.naming_columns import NAMING_COLUMNS
from affectlens.features.naming_files import read_names, write_names
from affectlens.features.validation_config import NamingConfig
from affectlens.sae.model import SparseAutoencoder

HOOK = "blocks.1.hook_resid_post"
EMOTION = "grief"
OWN = sorted(own_lexicon().words[EMOTION])[:6]
PLAIN = [f"thing{chr(97 + i)}" for i in range(26)]
WORDS = [*OWN, *PLAIN]
D_IN, D_SAE = 32, 160
DETECTS, NAMES, EVOKES, SILENT = range(4)
HOSTILE = ["\u2028", "\u0085", "\x00", "\ud800", "\r\n", '"', "\\", "</script>", "\u202e", "", " "]
CONFIG = NamingConfig(n_reference=120, n_contexts=2, n_groups=2, context_width=3, n_tokens=4)
FOUND = {"all": [DETECTS, EVOKES], EMOTION: [NAMES, SILENT, DETECTS]}


class MemoryStore:
    """Two held-out documents; the first token of each is masked."""

    documents = ("a", "b")

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def heldout(self, hook: str, max_rows: int | None = None, *, kept_only: bool = True) -> Rows:
        return self.rows


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model("llama", words=WORDS)


@pytest.fixture(scope="module")
def store(model: LanguageModel) -> Any:
    # A word is one token of this tokenizer only behind a mark.
    texts = [
        f"x, {OWN[0]}, {PLAIN[0]}.\u2028, {PLAIN[1]}, {OWN[1]}, \x00\r\n12",
        f"y </script> {PLAIN[2]}, {OWN[0]} \u202e\U0001f622 {PLAIN[3]}",
    ]
    ids = [model.tokenizer.encode(t, add_special_tokens=False) for t in texts]
    doc = np.repeat([0, 1], [len(i) for i in ids]).astype(np.int32)
    position = np.concatenate([np.arange(len(i)) for i in ids]).astype(np.int32)
    token = np.concatenate(ids).astype(np.int32)
    acts = torch.rand(len(doc), D_IN, generator=torch.Generator().manual_seed(0))
    # What the planted latents read: emotion words, even tokens, odd tokens.
    emotion = np.isin(token, [model.tokenizer.encode(f" {w}")[-1] for w in OWN])
    for column, fires in enumerate((emotion, position % 2 == 0, position % 2 == 1)):
        acts[:, column] = torch.from_numpy(np.where(fires, 1.0 + position, -1.0))
    return MemoryStore(Rows(acts, position > 0, doc, position, token))


@pytest.fixture(scope="module")
def sae(model: LanguageModel) -> SparseAutoencoder:
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name=HOOK)
    made = sae_lens.StandardSAE(sae_lens.StandardSAEConfig(D_IN, D_SAE, metadata=metadata))
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    made.b_enc.data.zero_()
    made.b_dec.data.zero_()
    made.W_enc.data[:3, 3:] = 0
    made.W_enc.data[:, :4] = torch.eye(D_IN)[:, :4]
    made.b_enc.data[SILENT] = -1e3
    out = unembedding(model)
    promoted = out.weight[word_token_ids(model, out, OWN)].mean(0)
    made.W_dec.data[NAMES] = promoted
    made.W_dec.data[EVOKES] = -promoted
    return SparseAutoencoder(made)


@pytest.fixture(scope="module")
def named(model: LanguageModel, sae: SparseAutoencoder, store: Any) -> FeatureNames:
    return name_features(model, sae, FOUND, store, CONFIG, hook=HOOK, quiet=True)


@pytest.mark.parametrize(
    ("mass", "auroc", "p", "kind"),
    [
        (None, 1.0, 0.001, "not seen"),
        (DETECTS_MASS, 1.0, 0.001, "detects words"),
        (np.nextafter(DETECTS_MASS, 0), NAMES_AUROC, NAMES_P, "names"),
        (0.0, np.nextafter(NAMES_AUROC, 0), NAMES_P, "evokes"),
        (0.0, NAMES_AUROC, np.nextafter(NAMES_P, 1), "evokes"),
        (0.0, None, None, "evokes"),
    ],
)
def test_kind_at_its_bounds(
    mass: float | None, auroc: float | None, p: float | None, kind: str
) -> None:
    assert kind_of(mass, auroc, p) == kind


def test_planted_latents_get_their_kind(named: FeatureNames) -> None:
    table = named.table().set_index(["contrast", "feature"])
    assert list(named.table().columns) == list(NAMING_COLUMNS)
    assert table.kind.to_dict() == {
        ("all", DETECTS): "detects words",
        (EMOTION, DETECTS): "detects words",
        (EMOTION, NAMES): "names",
        ("all", EVOKES): "evokes",
        (EMOTION, SILENT): "not seen",
    }
    assert table.own_mass[EMOTION, DETECTS] == table.emotion_mass["all", DETECTS] == 1
    assert table.auroc[EMOTION, NAMES] > NAMES_AUROC and table.auroc["all", EVOKES] < 0.5
    silent = table.loc[EMOTION, SILENT]
    assert np.isnan(silent.emotion_mass) and silent.top_token == "" and silent.firing_rate == 0


def test_what_is_told_of_one_latent(named: FeatureNames, sae: SparseAutoencoder) -> None:
    assert [n.feature for n in named.names] == [DETECTS, NAMES, EVOKES, SILENT]
    name = named.names[DETECTS]
    assert {t.text for t in name.tokens.top} == {f" {w}" for w in OWN[:2]}
    peaks = [c.tokens[c.peak] for g in name.groups for c in g.contexts]
    assert peaks and set(peaks) <= {f" {w}" for w in OWN[:2]}
    unit = torch.nn.functional.normalize(sae.W_dec.double(), dim=1)
    cosine = (unit @ unit[DETECTS]).index_fill(0, torch.tensor([DETECTS]), -2)
    assert [n.feature for n in name.nearest_decoder] == cosine.topk(5).indices.tolist()
    assert named.names[SILENT].groups == () == named.names[SILENT].nearest_cofiring
    up, down = named.names[NAMES].lens.promoted, named.names[EVOKES].lens.suppressed
    assert [t.token for t in up] == [t.token for t in down]
    assert {t.text for t in up} & {f" {w}" for w in OWN}


def test_the_same_run_gives_the_same_names(
    model: LanguageModel, sae: SparseAutoencoder, store: Any, named: FeatureNames
) -> None:
    again = name_features(model, sae, FOUND, store, CONFIG, hook=HOOK, quiet=True)
    assert again == named
    assert named.n_reference == 120
    assert named.n_masked == 2 and named.n_tokens == len(store.rows) - 2


def test_an_emotion_without_words_is_described_by_what_is_left(
    model: LanguageModel, sae: SparseAutoencoder, store: Any
) -> None:
    named = name_features(model, sae, {"zeal": [1]}, store, CONFIG, hook=HOOK, quiet=True)
    (words,) = named.names[0].emotions
    assert (words.contrast, words.own_mass, words.auroc, words.n_words) == ("zeal", None, None, 0)


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"all": [1, 2, 1]}, "lists a latent twice"),
        ({"all": []}, "no latents to name"),
        ({}, "no latents to name"),
        ({"all": [D_SAE]}, f"no latent {D_SAE}"),
    ],
)
def test_refusals(
    model: LanguageModel,
    sae: SparseAutoencoder,
    store: Any,
    features: dict[str, Sequence[int]],
    said: str,
) -> None:
    with pytest.raises(ConfigError, match=said):
        name_features(model, sae, features, store, CONFIG, hook=HOOK, quiet=True)


def test_hostile_tokens_come_back(named: FeatureNames, tmp_path: Path) -> None:
    first = named.names[0]
    shares = tuple(dataclasses.replace(first.tokens.top[0], text=text) for text in HOSTILE)
    group = first.groups[0]
    context = dataclasses.replace(group.contexts[0], tokens=HOSTILE, doc_id="\u2028\ud800")
    groups = (dataclasses.replace(group, contexts=(context,)),)
    changed = dataclasses.replace(
        first, tokens=dataclasses.replace(first.tokens, top=shares), groups=groups
    )
    hostile = dataclasses.replace(named, names=(changed, *named.names[1:]), model_name="\u0085\n")
    path = write_names(tmp_path / "new" / "names.jsonl", hostile)
    assert read_names(path) == hostile
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == len(named.names) + 2
    assert json.loads(lines[1])["feature"] == first.feature


def test_a_cut_file_is_refused(named: FeatureNames, tmp_path: Path) -> None:
    path = write_names(tmp_path / "names.jsonl", named)
    whole = path.read_bytes()
    assert read_names(path) == named
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    for stop in (0, 1, ends[0] - 1, ends[0], ends[1], ends[-2] + 1, ends[-2] + 20, ends[-1] - 1):
        path.write_bytes(whole[:stop])
        with pytest.raises(ArtifactError):
            read_names(path)
    path.write_bytes(whole[: ends[-2] + 1])
    with pytest.raises(ArtifactError, match="cut off"):
        read_names(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"format_version": 1', b'"format_version": 2', "version 2"),
        (b'"affectlens feature names"', b'"names"', "is 'names'"),
        (b'"firing_rate"', b'"rate"', "other fields"),
        (b'"model_name"', b'"model"', "other fields"),
        (b'"kind": "names"', b'"kind": "knows"', "other fields"),
        (b"tiny", b"\xff", "damaged"),
        (b"\n{", b"\n[1]\n{", "line 2: not an object"),
    ],
)
def test_another_file_is_refused(
    named: FeatureNames, tmp_path: Path, old: bytes, new: bytes, said: str
) -> None:
    path = write_names(tmp_path / "names.jsonl", named)
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new, 1))
    with pytest.raises(ArtifactError, match=said):
        read_names(path)


def test_absent_files_and_numbers_that_are_none(named: FeatureNames, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has not been run"):
        read_names(tmp_path / "names.jsonl")
    path = write_names(tmp_path / "names.jsonl", named)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_names(path, dataclasses.replace(named, emotion_token_rate=float("nan")))
    assert path.read_bytes() == before
