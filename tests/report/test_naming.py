"""A line a found feature: what it holds, and that hostile text stays text."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic_effects
import synthetic_validity as made

from affectlens.data.errors import ArtifactError
from affectlens.features.results import write_lines
from affectlens.report import naming
from affectlens.report.build import _environment
from affectlens.report.feature_names import FORMAT, NAMES_FILE
from affectlens.report.loading import RunData

HOSTILE = synthetic_effects.HOSTILE


def name_line(feature: int, contrast: str = "all", token: str = " grief", **changes: object):  # type: ignore[no-untyped-def]
    """One line of naming/names.jsonl, as the naming stage writes it."""
    context = {
        "feature": feature,
        "doc_id": "d-1",
        "position": 5,
        "peak": 1,
        "tokens": [" the", token, " came"],
        "activations": [0.0, 4.0, 1.0],
    }
    group = {"feature": feature, "low": 3.0, "high": 4.0, "n_tokens": 12, "share": 0.25,
             "contexts": [context] * 5}  # fmt: skip
    token_share = {"token": 7, "text": token, "mass_share": 0.14, "base_rate": 0.01, "lift": 14.0,
                   "n_active": 9}  # fmt: skip
    logit = {"token": 7, "text": token, "logit": 0.97}
    emotion = {"contrast": contrast, "kind": "evokes", "own_mass": 0.02, "auroc": 0.63, "z": 3.2,
               "p_reference": 0.07, "n_words": 49}  # fmt: skip
    line = {
        "feature": feature,
        "firing_rate": 0.0049,
        "max_active": 75.2,
        "density": {"log10_edges": [0.3, 0.4], "counts": [4]},
        "groups": [group],
        "tokens": {"n_active": 48, "n_types": 40, "entropy_bits": 5.3, "effective_types": 39.5,
                   "base_entropy_bits": 8.9, "top": [token_share]},
        "emotion_mass": 0.02,
        "lens": {"promoted": [logit] * 12, "suppressed": [{**logit, "logit": -0.4}]},
        "emotions": [emotion],
        "nearest_decoder": [{"feature": 2016, "value": 0.26}],
        "nearest_cofiring": [],
    }  # fmt: skip
    return {**line, **changes}


def head(n_names: int, **changes: object) -> dict[str, object]:
    about = {"format": FORMAT, "format_version": 1, "n_names": n_names, "n_tokens": 31_120,
             "n_masked": 156, "emotion_token_rate": 0.012, "lexicon": "own screening list",
             "n_reference": 500, "model_name": "m"}  # fmt: skip
    return {**about, **changes}


def run_with(folder: Path, data: RunData, *lines: dict[str, object]) -> RunData:
    write_lines(folder / NAMES_FILE, lines)
    return replace(data, path=folder)


def page(data: RunData) -> made.Fragment:
    template = _environment().get_template("naming.html.j2")
    return made.Fragment(template.render(naming=naming.naming_section(data), data=data))


def first(data: RunData, *, confirmed: bool) -> int:
    table = data.features[data.features.retained & (data.features.confirmed == confirmed)]  # type: ignore[index,union-attr]
    return int(table.feature.iloc[0])


def test_no_names_is_said(null: RunData) -> None:
    assert naming.naming_section(null) is None
    assert "This stage has not been run: affectlens name RUN." in page(null).words


def test_a_line_says_what_is_known(positive: RunData, tmp_path: Path) -> None:
    sure, rest = (first(positive, confirmed=c) for c in (True, False))
    section = naming.naming_section(
        run_with(tmp_path, positive, head(2), name_line(rest), name_line(sure))
    )
    assert section is not None and section.confirmed and section.others
    assert [row.name for row in section.confirmed.rows] == [str(sure)]
    assert [row.name for row in section.others.rows] == [str(rest)]
    assert section.kinds.startswith("2 “evokes” (neither")
    assert "31,120 held-out corpus tokens" in section.basis
    row = section.confirmed.rows[0]
    kind, fires, promotes = row.cells
    assert (kind.text, kind.title) == ("evokes", naming.KINDS["evokes"])
    assert fires.text == "␣grief (14%, 14×)"
    assert promotes.text.count("␣grief (+0.97)") == naming.TOKENS_SHOWN
    assert row.link == f"feature-{sure}"


def test_a_latent_that_never_fires(positive: RunData, tmp_path: Path) -> None:
    silent = name_line(
        3,
        firing_rate=0.0,
        max_active=0.0,
        groups=[],
        tokens={"n_active": 0, "n_types": 0, "entropy_bits": None, "effective_types": None,
                "base_entropy_bits": 8.9, "top": []},
        emotion_mass=None,
        emotions=[{"contrast": "grief", "kind": "not seen", "own_mass": None, "auroc": None,
                   "z": None, "p_reference": None, "n_words": 2}],
    )  # fmt: skip
    section = naming.naming_section(run_with(tmp_path, positive, head(1), silent))
    assert section is not None and section.confirmed is None and section.others
    (row,) = section.others.rows
    assert [cell.text for cell in row.cells[:2]] == ["not seen", "never on held-out text"]
    assert row.link == ""  # it was not retained, so it has no page
    assert page(replace(positive, path=tmp_path)).words


def test_hostile_tokens_stay_text(positive: RunData, tmp_path: Path) -> None:
    line = name_line(first(positive, confirmed=True), token=HOSTILE)
    got = page(run_with(tmp_path, positive, head(1, lexicon=HOSTILE), line))
    assert not {"script", "img"} & {tag for tag, _ in got.tags}
    assert "⟨U+202E⟩gnp.exe" in got.words and "{{ 7*7 }}" in got.words
    assert not any(mark in got.text for mark in ("\x1b", "\u202e", "\ud800"))
    assert not any(name.startswith("on") for _, attrs in got.tags for name in attrs)


def test_every_line_of_a_retained_feature_leads_to_its_page(
    positive: RunData, tmp_path: Path
) -> None:
    feature = first(positive, confirmed=True)
    got = page(run_with(tmp_path, positive, head(1), name_line(feature)))
    assert f"#feature-{feature}" in got.values("href")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([head(1, format_version=9), name_line(1)], "of version 9"),
        ([head(1, format="something"), name_line(1)], "'something'"),
        ([head(2), name_line(1)], "cut off"),
        ([head(1), {"feature": 1}], "other fields"),
        ([head(1), name_line(1, groups="none")], "other fields"),
        ([], "of version None"),
    ],
)
def test_a_broken_file_is_an_error(
    positive: RunData, tmp_path: Path, lines: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        naming.naming_section(run_with(tmp_path, positive, *lines))


def test_a_line_that_is_no_json_is_an_error(positive: RunData, tmp_path: Path) -> None:
    (tmp_path / "naming").mkdir()
    (tmp_path / NAMES_FILE).write_text(json.dumps(head(1)) + "\n{")
    with pytest.raises(ArtifactError, match="line 2"):
        naming.naming_section(replace(positive, path=tmp_path))
