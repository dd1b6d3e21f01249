"""Cards of found features: what they hold, and that hostile text stays text."""

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
    about = {"format": naming.FORMAT, "format_version": 1, "n_names": n_names, "n_tokens": 31_120,
             "n_masked": 156, "emotion_token_rate": 0.012, "lexicon": "own screening list",
             "n_reference": 500, "model_name": "m"}  # fmt: skip
    return {**about, **changes}


def run_with(folder: Path, data: RunData, *lines: dict[str, object]) -> RunData:
    write_lines(folder / naming.FILE, lines)
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


def test_card_says_what_is_known(positive: RunData, tmp_path: Path) -> None:
    sure, rest = (first(positive, confirmed=c) for c in (True, False))
    section = naming.naming_section(
        run_with(tmp_path, positive, head(2), name_line(rest), name_line(sure))
    )
    assert section is not None
    assert [c.feature for c in section.confirmed] == [sure]
    assert [c.feature for c in section.others] == [rest]
    assert section.kinds.startswith("2 “evokes” (neither")
    assert "31,120 held-out corpus tokens" in section.basis
    card = section.confirmed[0]
    assert card.seen == "fires on 0.49% of tokens, at most 75.2"
    assert "spread like 40 equal token types of 40 seen (entropy 5.3 bits" in card.spread
    assert card.words == (
        "2.0% of its activation on emotion words (1.2% of tokens are); promotes emotion words: "
        "AUROC 0.63, reached by 7.0% of other features (49 words)",
    )
    assert card.top == (naming.Chip("␣", "grief", "14%", "14%, 14× its share of text"),)
    assert len(card.promoted) == naming.TOKENS_SHOWN
    assert card.suppressed[0].note == "logit −0.40"
    assert len(card.ranges[0].snippets) == naming.CONTEXTS_A_GROUP
    assert card.ranges[0].title == "3.0 to 4.0: 25% of the tokens it fires on (12)"
    assert [text for _, text in card.neighbours] == ["2016 (0.26)", "none"]


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
    assert section is not None
    card = section.others[0]
    assert (card.seen, card.spread, card.ranges) == ("never fires on held-out text", "", ())
    assert card.words == ("too few words of grief to score what it promotes",)
    assert page(replace(positive, path=tmp_path)).words


def test_hostile_tokens_stay_text(positive: RunData, tmp_path: Path) -> None:
    line = name_line(first(positive, confirmed=True), token=HOSTILE)
    got = page(run_with(tmp_path, positive, head(1, lexicon=HOSTILE), line))
    assert not {"script", "img"} & {tag for tag, _ in got.tags}
    assert "⟨U+202E⟩gnp.exe" in got.words and "{{ 7*7 }}" in got.words
    assert not any(mark in got.text for mark in ("\x1b", "\u202e", "\ud800"))
    assert not any(name.startswith("on") for _, attrs in got.tags for name in attrs)


@pytest.mark.parametrize(
    ("token", "lead", "text"),
    [
        (" sad", "␣", "sad"),
        (" ", "", "␣"),
        ("\r\n  ", "", "\\r↵␣␣"),
        ("\u00a0", "", "⟨U+00A0⟩"),
        ("", "", "(empty)"),
        ("x" * 40, "", "x" * 23 + "…"),
    ],
)
def test_blanks_are_drawn(token: str, lead: str, text: str) -> None:
    chip = naming._chip(token, "", "")
    assert (chip.lead, chip.text) == (lead, text)


def test_every_card_can_be_linked_to(positive: RunData, tmp_path: Path) -> None:
    lines = [name_line(f) for f in (5, 9)]
    got = page(run_with(tmp_path, positive, head(2), *lines))
    assert {"latent-5", "latent-9"} <= set(got.values("id"))


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
    (tmp_path / naming.FILE).write_text(json.dumps(head(1)) + "\n{")
    with pytest.raises(ArtifactError, match="line 2"):
        naming.naming_section(replace(positive, path=tmp_path))
