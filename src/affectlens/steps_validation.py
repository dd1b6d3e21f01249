"""The stages that follow a search: lexical controls, validity, baselines and names.

A search that leaves a stage nothing to test (`features.testable`) ends it without results; the
report says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    texts = {
        "corpus": input_identity(settings.corpus),
        "strict": [input_identity(name) for name in settings.strict],
    }
    names = ("controls", "control_grains", "strict")
    outputs = [*tables(*(f"search/{name}" for name in names)), "search/controls.json"]
    _written(state, "controls", settings, outputs, lambda after: after.controls(settings), **texts)


def validity(state: Run) -> None:
    """Test dose, discriminant, transfer, domains and the rest on the retained latents."""
    settings = state.config.validation.validity
    _written(state, "validity", settings, ["validity"], lambda after: after.validity(settings))


def baselines(state: Run) -> None:
    """Put simpler methods beside the latents, on the same pairs."""
    settings = state.config.validation.baselines
    outputs = [*tables("search/baselines"), "search/baselines.json"]
    _written(state, "baselines", settings, outputs, lambda after: after.baselines(settings))


def naming(state: Run) -> None:
    """Describe the retained latents by contexts, tokens and neighbours."""
    settings = state.config.validation.naming
    _written(
        state, "naming", settings, ["naming"], lambda after: after.naming(settings, state.store)
    )


def _written(
    state: Run,
    name: str,
    settings: StageConfig,
    outputs: Sequence[str],
    stage: Callable[[AfterSearch], _Result],
    **more: Any,
) -> None:
    def body() -> None:
        stage(state.after_search).write(state.folder)

    step(state, name, settings, outputs, body, **more)


def step(
    state: Run,
    name: str,
    settings: StageConfig,
    outputs: Sequence[str],
    body: Callable[[], object],
    *,
    without: set[str] | None = None,
    **more: Any,
) -> None:
    """A stage after the search: done if its files are not there yet and something is left to do.

    Args:
        state: the run.
        name: the stage.
        settings: its configuration, a part of its key.
        outputs: files and folders that `body` writes.
        body: does the stage.
        without: fields of `settings` on which the result does not depend.
        **more: the rest of the key, beside that of the search.
    """
    key = {
        "search": state.keys["search"],
        "config": settings.model_dump(mode="json", exclude=without),
        **more,
    }
    reason = _reason(state, name)
    with state.stage(name, key, [] if reason else outputs) as needed:
        if needed and reason:
            state.drop(name, outputs)
            state.log(name, reason)
        elif needed:
            body()


def tables(*names: str) -> list[str]:
    """The files of tables."""
    return [f"{name}.{kind}" for name in names for kind in ("parquet", "csv")]


def _reason(state: Run, name: str) -> str:
    """Why a stage has nothing to do; empty before the search is there, as in a plan."""
    from affectlens.features.results import SearchSummary
    from affectlens.features.testable import untestable

    try:
        summary = SearchSummary.read(state.folder)
    except ArtifactError:
        return ""
    return untestable(summary).get(name, "")
