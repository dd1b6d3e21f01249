"""The stages from texts to effects, in order; each takes the run and does what is missing.

A step names what its result depends on (its key) and the files it leaves, and loads and computes
only where these are not there yet.
"""

from __future__ import annotations

from typing import Any

from affectlens.data.artifacts import read_json
from affectlens.run_state import CHECK_FILE, Run, input_identity
from affectlens.steps_validation import baselines, controls, naming, step, tables, validity
from affectlens.training.config import WITHOUT_EFFECT

SEARCH_FILES = [
    *tables(*(f"search/{name}" for name in ("specificity", "pooled", "reads", "feature_stats"))),
    "search/contexts.jsonl",
    "search/encoded.h5",
    "search/search.json",
]
TABLE_FILES = tables("search/features")
SCREEN_FILES = [*tables("search/screen", "search/screen_agreement"), "search/screen.json"]


def _audit(state: Run) -> None:
    key = {
        "battery": input_identity(state.config.battery),
        "model": input_identity(state.config.model),
        "revision": state.config.revision,
        "dtype": state.config.dtype,
        "seed": state.config.seed,
    }
    with state.stage("audit", key, ["battery/audit.json"]) as needed:
        if needed:
            from affectlens.features.contextual import static_means
            from affectlens.features.lexical import AuditConfig, audit

            static = static_means(state.lm, state.battery)
            card = audit(state.battery, AuditConfig(seed=state.config.seed), static=static)
            card.write(state.folder / "battery/audit.json")


def _harvest(state: Run) -> None:
    c = state.config
    key = {
        "model": input_identity(c.model),
        "revision": c.revision,
        "dtype": c.dtype,
        "corpus": input_identity(c.corpus),
        "battery": input_identity(c.battery),
        "config": c.harvest.model_dump(mode="json", exclude={"layers"} if c.sae else None),
        **state.loaded_sae,
    }
    with state.stage("harvest", key, ["activations"]) as needed:
        if needed:
            from affectlens.data.activations import harvest
            from affectlens.data.corpus import load_corpus

            state.drop_stale("activations", key)
            harvest(
                state.lm,
                load_corpus(c.corpus),
                state.harvest_config,
                state.folder / "activations",
                avoid=state.battery.texts,
                quiet=state.quiet,
            )


def _train(state: Run) -> None:
    if state.config.sae is not None:
        _load(state)
        return
    settings = state.config.train.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    key = {"harvest": state.keys["harvest"], "config": settings}
    with state.stage("train", key, ["sae"]) as needed:
        if needed:
            from affectlens.training.trainer import train

            state.drop_stale("sae", key)
            train(
                state.store,
                state.config.train,
                state.folder / "sae",
                lm=state.lm,
                quiet=state.quiet,
                device=state.config.device,
            )


def _load(state: Run) -> None:
    key = {"harvest": state.keys["harvest"], **state.loaded_sae}
    with state.stage("load", key, ["sae"]) as needed:
        if needed:
            from affectlens.training.adopt import adopt

            state.drop_stale("sae", key)
            adopt(state.named_sae, state.store, state.folder / "sae", lm=state.lm)


def _check(state: Run) -> None:
    key = {"train": state.keys["train" if state.config.sae is None else "load"]}
    with state.stage("check", key, [CHECK_FILE]) as needed:
        if needed:
            from affectlens.guard import ensure_checked

            ensure_checked(state.sae, state.lm, state.store, file=state.folder / CHECK_FILE)


def _search(state: Run) -> None:
    screened = "screen" not in state.config.skip
    key = {
        "check": state.keys["check"],
        "audit": state.keys["audit"],
        "config": state.config.search.model_dump(mode="json"),
        # The table of a search belongs to the stage that fills its last columns.
        "screened": screened,
        **state.overridden,
    }
    outputs = [*SEARCH_FILES, *([] if screened else TABLE_FILES)]
    with state.stage("search", key, outputs) as needed:
        if needed:
            from affectlens.features.search import search

            card = read_json(state.folder / "battery/audit.json")
            search(
                state.lm,
                state.sae,
                state.battery,
                state.config.search,
                out=state.folder,
                store=state.store,
                lexical_warning=card["warning"],
                allow_misfit=state.config.allow_misfit,
            )


def _screen(state: Run) -> None:
    if "screen" in state.config.skip:
        return
    settings = state.config.validation.screen

    def body() -> None:
        state.after_search.screened(settings).write_screen(state.folder)
        state.forget_search()

    outputs = [*TABLE_FILES, *SCREEN_FILES]
    words = input_identity(settings.words)
    step(state, "screen", settings, outputs, body, words=words, **state.overridden)


def _intervene(state: Run) -> None:
    settings = state.config.intervene

    def body() -> None:
        from affectlens.features.effects import intervene
        from affectlens.features.readout_check import check_readout

        check_readout(state.lm, state.battery, settings, out=state.folder)
        intervene(
            state.lm, state.sae, state.chosen(), state.battery, settings, **_as_the_run(state)
        )

    names = ("effects", "verdicts", "doses", "mediation", "matrix", "damage", "readout_check")
    outputs = [*tables(*(f"effects/{name}" for name in names)), "effects/effects.json"]
    words = input_identity(settings.measures.words)
    step(state, "intervene", settings, outputs, body, words=words, **state.overridden)


def _steer(state: Run) -> None:
    settings = state.config.steer

    def body() -> None:
        from affectlens.features.steering import steer

        steer(state.lm, state.sae, state.chosen(), settings, **_as_the_run(state))

    step(
        state,
        "steer",
        settings,
        ["effects/generations.jsonl"],
        body,
        without={"study", "evaluate"},
        n=state.config.intervene.features_per_emotion,
        **state.overridden,
    )


def _study(state: Run) -> None:
    if not state.config.steer.evaluate:
        return
    settings = state.config.steer.study

    def body() -> None:
        from affectlens.features.steering_study import evaluate_steering

        inputs = state.after_search.inputs
        evaluate_steering(*inputs, settings, screen=state.found.screen, **_as_the_run(state))

    step(
        state,
        "study",
        settings,
        ["steering"],
        body,
        screen=state.keys.get("screen"),
        scenarios=input_identity(settings.scenarios),
        scorer=input_identity(settings.scorer),
        **state.overridden,
    )


def _as_the_run(state: Run) -> dict[str, Any]:
    return {
        "out": state.folder,
        "quiet": state.quiet,
        "allow_misfit": state.config.allow_misfit,
    }


STEPS = (
    _audit,
    _harvest,
    _train,
    _check,
    _search,
    _screen,
    controls,
    validity,
    baselines,
    naming,
    _intervene,
    _steer,
    _study,
)
"""The stages before the report, in order; each takes the run and does what is missing."""
