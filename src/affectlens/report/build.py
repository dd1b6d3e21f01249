"""Builds `report.html`: one offline file that may use only its own style and script (CSP)."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import affectlens
from affectlens.data.artifacts import atomic_path
from affectlens.display.words import sentence, visible
from affectlens.features.testable import untestable

from . import controlled, doses, facts, views
from .baselines import baselines_section
from .calibration import calibration_section
from .classes import KINDS
from .contrasts import contrast_blocks
from .damage import damage_view
from .drawing import Drawing, rare_collections
from .effect_matrix import matrix_lines
from .feature_pages import feature_pages
from .figures_arms import figure_name
from .findings import main_findings
from .lexical import lexical_section
from .loading import RunData, load_run
from .mediation import mediation_view
from .naming import naming_section
from .nulls import nulls_section
from .reads import reads_view
from .screening import screen_view
from .study import study_view
from .theme import FigureView
from .validity import validity_section

REPORT_NAME = "report.html"
ARM_FIGURES_SHOWN = 4
"""Interventions whose forest plot is on the page; the others lie beside it as files."""


def build_report(run: Path) -> Path:
    """Render a run folder to `run/report.html` and `run/figures/*.{png,svg}`.

    Stages that have not been run are named as such. The same folder gives the same bytes.

    Args:
        run: folder with any of run.json, config.yaml, sae/, search/, effects/.

    Returns:
        Path of the page.

    Raises:
        ArtifactError: not a run folder, or a file in it is broken or of another format version.
        MachineError: the disk is full.
    """
    data = load_run(run)
    with rare_collections(), Drawing(data) as drawing:
        parts = _parts(data)
        page = _rendered(data, parts, drawing.views())
    target = data.path / REPORT_NAME
    with atomic_path(target) as tmp:
        tmp.write_text(page, encoding="utf-8")
    return target


def render_page(data: RunData, figures: dict[str, FigureView]) -> str:
    """The page as text; `figures` by name, missing ones are left out."""
    return _rendered(data, _parts(data), figures)


def _rendered(data: RunData, parts: dict[str, Any], figures: dict[str, FigureView]) -> str:
    template = _environment().get_template("report.html.j2")
    return template.render(**parts, figures=figures, arm_figures=_shown_arms(data, figures))


def _parts(data: RunData) -> dict[str, Any]:
    """Everything on the page but the figures."""
    style, script = _style(), _script()
    blocks, pages = contrast_blocks(data), feature_pages(data)
    groups, n_hidden = views.text_groups(data)
    return {
        "style": Markup(style),
        "script": Markup(script),
        "policy": policy(style, script),
        "version": affectlens.__version__,
        "model": data.lookup("model", "name"),
        "data": data,
        "summary": data.summary,
        "effects": data.effects_summary,
        "findings": main_findings(data),
        "warning": _warning(data),
        "run_facts": facts.what_was_run(data),
        "controls": controlled.controls(data),
        "not_controlled": controlled.not_controlled(data),
        "quality": facts.quality(data),
        "quality_verdict": facts.quality_verdict(data),
        "power": facts.power(data),
        "provenance": facts.provenance(data),
        "reads": reads_view(data),
        "blocks": blocks,
        "kinds": [
            k
            for k in KINDS
            if any(r.verdict and r.verdict.kind == k for b in blocks for r in b.rows)
        ],
        "features_view": pages,
        "paged": frozenset() if pages is None else frozenset(p.feature for p in pages.pages),
        "lexical": lexical_section(data),
        "baselines": baselines_section(data),
        "validity": validity_section(data),
        "naming": naming_section(data),
        "calibration": calibration_section(data),
        "nulls": nulls_section(data),
        "untestable": untestable(data.summary) if data.summary else {},
        "screen": screen_view(data),
        "mediation": mediation_view(data),
        "study": study_view(data),
        "verdicts": views.verdict_blocks(data),
        "dose_rule": doses.dose_rule(data),
        "dose_tables": doses.dose_tables(data),
        "norm_table": doses.norm_table(data),
        "norm_sentence": doses.norm_sentence(data),
        "missing_arms": doses.missing_arms(data),
        "prompt_sentences": doses.prompts(data),
        "matrix_lines": matrix_lines(data),
        "damage": damage_view(data),
        "simpler": views.simpler_method(data),
        "readouts": views.readout_rows(data),
        "readout_sentence": views.readout_sentence(data),
        "dropped": views.dropped_words(data),
        "groups": groups,
        "n_hidden_groups": n_hidden,
    }


def policy(style: str, script: str) -> str:
    """Content-Security-Policy: nothing from outside, only this style and script, images as data."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src "
        f"'{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _shown_arms(
    data: RunData, figures: dict[str, FigureView]
) -> tuple[list[FigureView], list[str]]:
    """Forest plots on the page, and the names of those that are only files."""
    names = (
        [figure_name(str(v)) for v in dict.fromkeys(data.verdicts.intervention)]
        if (data.verdicts is not None)
        else []
    )
    there = [name for name in names if name in figures]
    return [figures[n] for n in there[:ARM_FIGURES_SHOWN]], there[ARM_FIGURES_SHOWN:]


def _style() -> str:
    return "".join(map(_resource, ("style.css", "sections.css", "feature_pages.css")))


def _script() -> str:
    return "".join(map(_resource, ("page.js", "feature_pages.js")))


def _warning(data: RunData) -> str:
    return sentence(data.summary.lexical_warning) if data.summary else ""


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _resource(name: str) -> str:
    return files("affectlens.report").joinpath("templates", name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("affectlens.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )


def _finalize(value: Any) -> Any:
    """The one door to the page: foreign characters that act on a reader become visible names."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
