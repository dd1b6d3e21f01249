"""The stages that follow a search: lexical controls, validity, baselines and names.

A search that leaves a stage nothing to test (`features.testable`) ends it without results; the
report says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from affectlens.data.config import StageConfig
from affectlens.data.errors import ArtifactError
from affectlens.run_state import Run, input_identity


def controls(state: Run) -> None:
    """Put the retained latents through the lexical controls."""
    settings = state.config.validation.controls

    def body() -> None:
        from affectlens.features.lexical_controls import lexical_controls

        lexical_controls(
            state.lm,
            state.sae,
            state.battery,
            state.found,
            settings,
            state.config.search,
            encoded=state.encoded,
            quiet=state.quiet,
        ).write(state.folder)

    tables = _tables("search/controls", "search/control_grains", "search/strict")
    texts = {"corpus": input_identity(settings.corpus), "strict": _identities(settings.strict)}
    _step(state, "controls", settings, [*tables, "search/controls.json"], body, texts)


def validity(state: Run) -> None:
    """Test dose, discriminant, transfer, domains and the rest on the retained latents."""
    settings = state.config.validation.validity

    def body() -> None:
        from affectlens.features.pooling import pool
        from affectlens.features.validity import check_validity

        pooled = pool(state.encoded, state.config.search.pooling)
        check_validity(pooled, state.battery, state.found, settings).write(state.folder)

    _step(state, "validity", settings, ["validity"], body)


def baselines(state: Run) -> None:
    """Put simpler methods beside the latents, on the same pairs."""
    settings = state.config.validation.baselines

    def body() -> None:
        from affectlens.null_baselines import run_baselines

        run_baselines(
            state.lm,
            state.sae,
            state.battery,
            state.found,
            settings,
            state.config.search,
            encoded=state.encoded,
            quiet=state.quiet,
        ).write(state.folder)

    outputs = [*_tables("search/baselines"), "search/baselines.json"]
    _step(state, "baselines", settings, outputs, body)


def naming(state: Run) -> None:
    """Describe the retained latents by contexts, tokens and neighbours."""
    settings = state.config.validation.naming

    def body() -> None:
        from affectlens.features.naming import name_features
        from affectlens.features.validity import retained

        chosen = retained(state.found.table)
        name_features(state.lm, state.sae, chosen, state.store, settings, quiet=state.quiet).write(
            state.folder
        )

    _step(state, "naming", settings, ["naming"], body)


def _step(
    state: Run,
    name: str,
    settings: StageConfig,
    outputs: Sequence[str],
    body: Callable[[], None],
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
            body()


def _reason(state: Run, name: str) -> str:
    """Why a stage has nothing to do; empty before the search is there, as in a plan."""
    from affectlens.features.results import SearchSummary
    from affectlens.features.testable import untestable

    try:
        summary = SearchSummary.read(state.folder)
    except ArtifactError:
        return ""
    return untestable(summary).get(name, "")


def _identities(names: Sequence[str]) -> list[Any]:
    return [input_identity(name) for name in names]


def _tables(*names: str) -> list[str]:
    return [f"{name}.{kind}" for name in names for kind in ("parquet", "csv")]
