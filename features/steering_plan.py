"""The plan of the steering study: everything that is fixed before the first text is written.

From the plan follow its cost, the batches, and the key under which finished batches are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

from affectlens.data.artifacts import sha256_json
from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.generation import Sampling
from affectlens.data.models import LanguageModel
from affectlens.data.scenarios import Scenario, Scenarios, load_scenarios
from affectlens.data.stimuli import Battery
from affectlens.features.contrasts import ALL
from affectlens.features.search import SearchResult
from affectlens.features.steering_arms import (
    EmotionArms,
    build_arms,
    chosen_sets,
    require_inputs,
)
from affectlens.features.steering_treatments import Treatment, treatments, written_norms
from affectlens.features.steering_writing import (
    Cost,
    Item,
    batches_of,
    prompt_ids,
    study_prompt,
)
from affectlens.features.study_config import SteeringStudyConfig
from affectlens.sae.model import SparseAutoencoder

if TYPE_CHECKING:
    from affectlens.features.screened import Screen

logger = logging.getLogger("affectlens")

_TOP_P = 0.95
_NORM_PROMPTS = 16
"""Prompts of the select half on which the reference set's written norm is measured."""


@dataclass(frozen=True, eq=False)
class StudyPlan:
    """All that is fixed before the first text is written.

    Attributes:
        config: settings.
        select, report: scenarios of the halves.
        arms: what is steered with.
        conditions: every emotion, arm, set and dose.
        items: different texts to be written.
        rows: condition, scenario and which of its texts -> its item.
        norms: emotion and dose -> norm of the reference set; empty where doses are shares.
        left_out: emotions that are not steered to, with the reason.
        key: hash of everything that the texts depend on.
    """

    config: SteeringStudyConfig
    select: Scenarios
    report: Scenarios
    arms: tuple[EmotionArms, ...]
    conditions: tuple[Treatment, ...]
    items: tuple[Item, ...] = field(repr=False)
    rows: Mapping[tuple[str, int, int], int] = field(repr=False)
    norms: Mapping[tuple[str, float], float]
    left_out: Mapping[str, str]
    key: str

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """The scenarios of both halves; the place in this order is the first text's stream."""
        return (*self.select.items, *self.report.items)

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        c = self.config
        return Sampling(c.max_new_tokens, c.temperature, _TOP_P, c.seed)

    def cost(self) -> Cost:
        """What will be written."""
        return Cost(
            n_conditions=len(self.conditions),
            n_texts=len(self.items),
            n_prompt_tokens=sum(len(item.ids) for item in self.items),
            max_new_tokens=len(self.items) * self.config.max_new_tokens,
            n_batches=len(batches_of(self.items, self.config.batch_size)),
        )


def plan_study(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    battery: Battery,
    found: SearchResult,
    config: SteeringStudyConfig,
    *,
    screen: Screen | None = None,
    labels: Sequence[str] = (),
    scenarios: Scenarios | None = None,
    quiet: bool | None = None,
) -> StudyPlan:
    """Fix arms, prompts and texts without writing any; `labels` are the scorer's.

    Raises:
        ConfigError, StimulusError: see `evaluate_steering`.
    """
    require_inputs(found, screen, config)
    chosen = _scenarios(config, scenarios)
    select, report = chosen.split(config.seed)
    emotions, left_out = _emotions(found, screen, config, labels)
    arms = build_arms(lm, sae, battery, found, screen, emotions, config, quiet=quiet)
    places = (*select.items, *report.items)
    prompts = _Prompts(lm, places, config)
    shown = [prompts.ids("", i) for i in range(min(_NORM_PROMPTS, len(select.items)))]
    norms = written_norms(lm, sae, found, arms, shown, config)
    conditions = treatments(sae, found, arms, norms, config)
    items: list[Item] = []
    rows: dict[tuple[str, int, int], int] = {}
    for condition in conditions:
        for copy, place in product(range(config.texts_per_scene), range(len(places))):
            if (condition.key, place, copy) not in rows:
                rows[condition.key, place, copy] = len(items)
                ids = prompts.ids(condition.instruction, place)
                items.append(Item(ids, place + copy * len(places), condition.specs))
    made_of = {
        "model": lm.fingerprint,
        "tokenizer": lm.tokenizer_sha256,
        "number_format": [str(lm.dtype), lm.device.type],
        "sae": sae.info.sha256,
        "sampling": [config.max_new_tokens, config.temperature, _TOP_P, config.seed],
        "batch_size": config.batch_size,
        "rows": [[key, items[i].stream, items[i].ids] for (key, *_), i in rows.items()],
    }
    return StudyPlan(
        config, select, report, arms, conditions, tuple(items), rows, norms, left_out,
        sha256_json(made_of),
    )  # fmt: skip


class _Prompts:
    """Token ids of every prompt, each made once."""

    def __init__(
        self, lm: LanguageModel, scenes: Sequence[Scenario], config: SteeringStudyConfig
    ) -> None:
        self._lm, self._scenes, self._config = lm, scenes, config
        self._known: dict[tuple[str, int], tuple[int, ...]] = {}

    def ids(self, asked: str, place: int) -> tuple[int, ...]:
        if (asked, place) not in self._known:
            scene, lm, new = self._scenes[place], self._lm, self._config.max_new_tokens
            prompt = study_prompt(lm, scene.prompt(self._config.valence), asked)
            ids = prompt_ids(lm, prompt, f"the prompt of scenario {scene.id!r}")
            if len(ids) + new > lm.context_length:
                raise StimulusError(
                    f"the prompt of scenario {scene.id!r} has {len(ids)} tokens; with {new} new "
                    f"ones it exceeds the context of {lm.name}, {lm.context_length} tokens; lower "
                    "max_new_tokens or leave the scenario out"
                )
            self._known[asked, place] = ids
        return self._known[asked, place]


def _scenarios(config: SteeringStudyConfig, given: Scenarios | None) -> Scenarios:
    """The scenarios of the study; a smaller number is taken from all themes in turn."""
    every = given if given is not None else load_scenarios(config.scenarios)
    n = config.n_scenarios
    if n is None:
        return every
    if n > len(every.items):
        raise ConfigError(
            f"n_scenarios is {n}, but {every.name} has {len(every.items)}; give fewer, or leave "
            "it unset for all"
        )
    nth: dict[str, int] = {}
    turn = []
    for place, scene in enumerate(every.items):
        turn.append((nth.get(scene.theme, 0), place))
        nth[scene.theme] = nth.get(scene.theme, 0) + 1
    kept = sorted(place for _, place in sorted(turn)[:n])
    return replace(every, items=tuple(every.items[place] for place in kept))


def _emotions(
    found: SearchResult,
    screen: Screen | None,
    config: SteeringStudyConfig,
    labels: Sequence[str],
) -> tuple[list[str], dict[str, str]]:
    """Emotions to steer to, and those of the search that cannot be, with the reason."""
    known = [c for c in found.contrasts if c != ALL]
    unknown = [e for e in config.emotions if e not in known]
    if unknown:
        raise ConfigError(
            f"the search has no emotion {', '.join(map(repr, unknown))}; it has {', '.join(known)}"
        )
    reasons = {}
    for emotion in config.emotions or known:
        if emotion not in labels:
            reasons[emotion] = "the scorer has no such label"
        elif screen is not None and emotion not in screen.summary.contrasts:
            reasons[emotion] = "the screen left it out"
        else:
            try:
                chosen_sets(found, screen, emotion, config)
            except ConfigError as error:
                reasons[emotion] = str(error)
    kept = [e for e in (config.emotions or known) if e not in reasons]
    if not kept or (config.emotions and reasons):
        listed = "; ".join(f"{e}: {reason}" for e, reason in reasons.items()) or "it has none"
        raise ConfigError(f"cannot steer to an emotion of this search ({listed})")
    for emotion, reason in reasons.items():
        logger.warning("steering study: %s is left out, %s", emotion, reason)
    return kept, reasons
