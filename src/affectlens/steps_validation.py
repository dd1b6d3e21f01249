"""The stages that follow a search: lexical controls, validity, baselines and names.

A search that leaves a stage nothing to test (`features.testable`) ends it without results; the
report says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from affectlens.data.config import StageConfig
from affectlens.data.errors import ArtifactError
from affectlens.run_state import Run, input_identity

if TYPE_CHECKING:
    from affectlens.after_search import AfterSearch


class _Result(Protocol):
    def write(self, run: Path) -> Path: ...


def controls(state: Run) -> None:
    """Put the retained latents through the lexical controls."""
    settings = state.config.validation.controls
    tables = _tables("search/controls", "search/control_grains", "search/strict")
    texts = {
        "corpus": input_identity(settings.corpus),
        "strict": [input_identity(name) for name in settings.strict],
    }
    outputs = [*tables, "search/controls.json"]
    _step(state, "controls", settings, outputs, lambda after: after.controls(settings), texts)


def validity(state: Run) -> None:
    """Test dose, discriminant, transfer, domains and the rest on the retained latents."""
    settings = state.config.validation.validity
    _step(state, "validity", settings, ["validity"], lambda after: after.validity(settings))


def baselines(state: Run) -> None:
    """Put simpler methods beside the latents, on the same pairs."""
    settings = state.config.validation.baselines
    outputs = [*_tables("search/baselines"), "search/baselines.json"]
    _step(state, "baselines", settings, outputs, lambda after: after.baselines(settings))


def naming(state: Run) -> None:
    """Describe the retained latents by contexts, tokens and neighbours."""
    settings = state.config.validation.naming
    _step(state, "naming", settings, ["naming"], lambda after: after.naming(settings, state.store))


def _step(
    state: Run,
    name: str,
    settings: StageConfig,
    outputs: Sequence[str],
    stage: Callable[[AfterSearch], _Result],
    more: Mapping[str, Any] | None = None,
) -> None:
    key = {
        "search": state.keys["search"],
        "config": settings.model_dump(mode="json"),
        **(more or {}),
    }
    reason = _reason(state, name)
    with state.stage(name, key, [] if reason else outputs) as needed:
        if needed and reason:
            state.drop(name, outputs)
            state.log(name, reason)
        elif needed:
            stage(state.after_search).write(state.folder)


def _reason(state: Run, name: str) -> str:
    """Why a stage has nothing to do; empty before the search is there, as in a plan."""
    from affectlens.features.results import SearchSummary
    from affectlens.features.testable import untestable

    try:
        summary = SearchSummary.read(state.folder)
    except ArtifactError:
        return ""
    return untestable(summary).get(name, "")


def _tables(*names: str) -> list[str]:
    return [f"{name}.{kind}" for name in names for kind in ("parquet", "csv")]
