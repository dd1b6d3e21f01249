import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.display.words import visible
from affectlens.features.results import Context
from affectlens.report import build_report, drawing
from affectlens.report.build import render_page
from affectlens.report.effect_matrix import matrix_figure
from affectlens.report.figures_arms import arm_figures
from affectlens.report.figures_effects import forest
from affectlens.report.figures_screen import screen_figures
from affectlens.report.figures_study import study_figures
from affectlens.report.findings import main_findings
from affectlens.report.loading import RunData, load_run
from affectlens.report.mediation import mediation_figures
from affectlens.report.theme import _style, to_bytes

VOID = {"meta", "img", "br", "source", "input", "link", "hr"}
SECTIONS = [
    "findings",
    "warning",
    "run",
    "features",
    "lexical",
    "baselines",
    "validity",
    "naming",
    "feature-pages",
    "screen",
    "effects",
    "mediation",
    "study",
    "texts",
    "calibration",
    "nulls",
    "limits",
    "sae",
    "provenance",
    "words",
]


class Page(HTMLParser):
    """Collects what a browser would act on, and checks that every element is closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.snippets: list[str] = []
        self.text: list[str] = []
        self._snippet = False
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "p" and ("class", "snippet") in attrs:
            self._snippet = True
            self.snippets.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "p":
            self._snippet = False

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]].append(data)
        else:
            self.text.append(data)
        if self._snippet:
            self.snippets[-1] += data

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def page(hostile_run: Path) -> Page:
    target = build_report(hostile_run)
    assert target == hostile_run / "report.html"
    return Page(target.read_text(encoding="utf-8"))


def test_every_section_is_there(page: Page) -> None:
    ids = page.values("id")
    assert all(section in ids for section in SECTIONS)
    links = [v for _, n, v in page.attributes if n == "href"]
    assert all(link.removeprefix("#") in ids for link in links)


def test_nothing_is_loaded_and_nothing_is_inline(page: Page) -> None:
    names = {name for _, name, _ in page.attributes}
    assert "style" not in names
    assert not any(name.startswith("on") for name in names)
    for tag, name, value in page.attributes:
        if name in {"src", "srcset"}:
            assert value.startswith("data:image/svg+xml;base64,")
        if name == "href":
            assert value.startswith("#"), tag


def test_policy_allows_only_this_style_and_this_script(page: Page) -> None:
    policy = next(v for v in page.values("content") if "default-src" in v)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        assert len(page.raw[kind]) == 1
        digest = base64.b64encode(hashlib.sha256(page.raw[kind][0].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_hostile_text_is_shown_as_text(page: Page, synthetic: ModuleType) -> None:
    shown = re.sub(r"\s+", " ", visible(synthetic.HOSTILE[:-1]))
    assert shown in page.words
    assert not any(tag == "img" and name == "onerror" for tag, name, _ in page.attributes)
    assert "49" not in page.raw["script"][0]
    source = " ".join(page.text)
    assert "\x1b" not in source and "\u202e" not in source


def test_the_warning_stands_before_the_results_and_texts_are_called_illustrations(
    page: Page,
) -> None:
    words = page.words
    assert words.index("Words alone also tell these texts apart") < words.index("6 features tell")
    assert words.index("the words give it away") < words.index(
        "Features that respond to emotional text"
    )
    assert "These are illustrations, not evidence." in words


def test_half_of_the_figures_drawn_beside_are_the_same_bytes(
    positive: RunData, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = []
    for cores in (1, 2):
        monkeypatch.setattr(drawing, "_cores", lambda cores=cores: cores)
        monkeypatch.setattr(drawing, "FEWEST_SHARED", 2)
        views.append(drawing.draw_figures(positive))
    assert views[0] == views[1] and len(views[0]) > 5
    # Whatever the other process fails to draw is drawn here.
    monkeypatch.setattr(drawing.sys, "executable", shutil.which("false"))
    assert drawing.draw_figures(positive) == views[0]


def test_every_answer_says_how_sure_it_is(causal: RunData) -> None:
    for finding in main_findings(causal):
        assert finding.question.endswith("?") and finding.sure
        assert finding.sure in finding.detail
        assert finding.headline.startswith(finding.answer)
        assert finding.headline.endswith(finding.held_against)


def test_figures_have_text_alternatives_and_files(page: Page, hostile_run: Path) -> None:
    alternatives = [v for tag, n, v in page.attributes if tag == "img" and n == "alt"]
    assert len(alternatives) == 10 and all(alternatives)
    names = {p.name for p in (hostile_run / "figures").iterdir()}
    stems = ("volcano", "best_feature", "specificity", "sae_training", "effects")
    stems += ("lexical", "baselines", "arms_ablate_zero", "arms_ablate_neutral", "arms_clamp")
    assert names == {f"{stem}{suffix}" for stem in stems for suffix in (".png", ".svg")}


def test_hostile_words_of_the_controls_and_reads_are_shown_as_text(page: Page) -> None:
    assert "Words carry it:" in page.words and "<b>⟨U+202E⟩" in page.words


def test_every_stage_that_was_run_is_on_the_page(validated: RunData) -> None:
    words = Page(render_page(validated, {})).words
    assert "affectlens controls RUN" not in words and "affectlens baselines RUN" not in words
    assert "Is it the words?" in words and "What simpler methods reach" in words
    assert "affectlens validity RUN" in words


def test_the_same_results_give_the_same_page(validated_run: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from affectlens.report.build import render_page; "
        "from affectlens.report.loading import load_run; "
        f"sys.stdout.write(render_page(load_run(Path({str(validated_run)!r})), {{}}))"
    )
    pages = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(pages) == 1


def test_causal_stages_stand_on_the_page(causal: RunData) -> None:
    words = Page(render_page(causal, {})).words
    for head in (
        "Does what the search found move the output?",
        "How much runs through the features?",
        "Which way of steering works?",
        "Own emotion, or any?",
        "What an edit damages",
        "Who read the texts",
        "p, all tests",
    ):
        assert head in words
    assert "affectlens screen RUN" not in words and "--evaluate" not in words


def test_causal_stages_that_were_not_run_are_named_with_their_command(null: RunData) -> None:
    words = Page(render_page(null, {})).words
    for command in ("screen RUN", "intervene RUN --mediation", "steer RUN --evaluate"):
        assert f"affectlens {command}" in words
    assert "Not tested in this run, so nothing is known about what the edits do" in words


def test_hostile_texts_of_the_study_are_shown_as_text(
    synthetic: ModuleType, tmp_path: Path
) -> None:
    stages = ("run", "search", "effects", "study")
    made = synthetic.Settings(hostile=True, n_tested=60, stages=stages)
    source = render_page(load_run(synthetic.write_run(tmp_path / "r", made)), {})
    page = Page(source)
    shown = re.sub(r"\s+", " ", visible(synthetic.HOSTILE[:-1]))
    study = source[source.index('<section id="study">') : source.index('<section id="texts">')]
    assert shown in Page(study).words
    assert study.count("&lt;/script&gt;") >= 32 and "<img" not in study
    assert "\x1b" not in source and "\u202e" not in source
    assert not any(tag == "img" and name == "onerror" for tag, name, _ in page.attributes)


def test_a_page_of_every_causal_stage_is_bounded(causal: RunData) -> None:
    specs = [*arm_figures(causal), *screen_figures(causal), *mediation_figures(causal)]
    specs += [*study_figures(causal), *filter(None, [matrix_figure(causal), forest(causal)])]
    size = len(render_page(causal, {}).encode())
    for spec in specs:
        with _style():
            svg = to_bytes(spec.draw(narrow=False), "svg")
        size += len(svg) * 2 * 4 // 3  # for a page and a phone; base64 adds a third
    assert len(specs) == 11
    assert size < 3_500_000  # the other figures of a whole run take about 1.4 MB


def test_size_is_bounded(page: Page, hostile_run: Path) -> None:
    assert (hostile_run / "report.html").stat().st_size < 5_000_000


def test_null_run_says_no_plainly(null: RunData) -> None:
    summary = replace(null.summary, confirm_min_p={"all": 0.004})  # type: ignore[type-var]
    words = Page(render_page(replace(null, summary=summary), {})).words
    assert words.count("not found") >= 3
    assert "No feature was confirmed to tell emotional texts from their neutral twins." in words
    assert "could not have succeeded" in words


def test_no_lexical_warning_is_not_a_clean_bill(positive: RunData) -> None:
    data = replace(positive, summary=replace(positive.summary, lexical_warning=""))  # type: ignore[type-var]
    words = Page(render_page(data, {})).words
    assert "No lexical warning was recorded" in words and "That is no proof" in words


@pytest.mark.parametrize(
    "stages", [("run",), ("sae",), ("search",), ("effects",), ("sae", "effects")]
)
def test_stages_not_run_are_named(
    synthetic: ModuleType, tmp_path: Path, stages: tuple[str, ...]
) -> None:
    run = synthetic.write_run(tmp_path / "r", synthetic.Settings(stages=stages, n_tested=60))
    page = Page(render_page(load_run(run), {}))
    assert "This stage has not been run" in page.words
    assert all(section in page.values("id") for section in SECTIONS)


def test_nothing_retained(positive: RunData) -> None:
    table = positive.features.assign(retained=False, confirmed=False)  # type: ignore[union-attr]
    words = Page(render_page(replace(positive, features=table), {})).words
    assert "No feature was carried to confirmation." in words


def test_a_lone_surrogate_from_a_file_is_shown(synthetic: ModuleType, tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "r", synthetic.Settings(stages=("search",), n_tested=60))
    feature = int(load_run(run).features.iloc[0].feature)  # type: ignore[union-attr]
    row = {
        "feature": feature,
        "doc_id": "d",
        "position": 1,
        "peak": 0,
        "tokens": ["x\ud800"],
        "activations": [1.0],
    }
    (run / "search/contexts.jsonl").write_text(json.dumps(row) + "\n")
    page = Page(render_page(load_run(run), {}))
    assert "x⟨U+D800⟩" in "".join(page.snippets)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.text(st.characters(), min_size=1, max_size=12), min_size=1, max_size=8))
def test_any_token_text_comes_through_unchanged(small: RunData, tokens: list[str]) -> None:
    feature = int(small.features.iloc[0].feature)  # type: ignore[union-attr]
    context = Context(feature, "doc", 3, 0, tokens, [1.0] * len(tokens))
    page = Page(render_page(replace(small, contexts=(context,)), {}))
    wanted = visible("".join(tokens).replace("\n", "↵"))
    assert page.snippets[0].split() == wanted.split()


@pytest.fixture(scope="module")
def small(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> RunData:
    folder = tmp_path_factory.mktemp("small")
    run = synthetic.write_run(folder, synthetic.Settings(stages=("search",), n_tested=40))
    return replace(load_run(run), contexts=())


def test_report_needs_no_torch(positive_run: Path) -> None:
    code = (
        "import sys, affectlens.report as r; from pathlib import Path; "
        f"r.findings(Path({str(positive_run)!r})); "
        "bad = {'torch', 'transformers', 'sae_lens', 'matplotlib.pyplot'} & set(sys.modules); "
        "sys.exit(', '.join(bad) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
