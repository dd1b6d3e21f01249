"""The arms of one emotion and intervention: the chosen features, and everything they must beat.

Every control writes the chosen edit's length, summed over the tokens of the same texts: latents by
the choice of sets and a factor on the change, directions by the vector they add to each token.
Directions go to the predicted side: a difference of means is subtracted where the chosen features
are ablated. Beside them stand rows that tell what the SAE's error does (splice, error only), and
for edits that raise the readout a sentence before the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from affectlens.data.models import LanguageModel
from affectlens.features.controls import (
    difference_of_means,
    nearest_in_norm,
    neuron_directions,
    probe_direction,
    random_sets,
    shuffled_selections,
    unit,
)
from affectlens.features.edit_plan import ErrorTerm
from affectlens.features.effect_study import EffectStudy, Rows, Texts, side_of
from affectlens.features.effects_config import DOSED
from affectlens.features.jobs import Job
from affectlens.features.latent_edits import LatentEdit, Specs
from affectlens.features.selection import FeatureSet
from affectlens.features.specs import AddDirection
from affectlens.features.verdicts import predicted_sign
from affectlens.features.written_norms import Array

_DRAWS = 12
"""Candidates for each random set where its length cannot be reached by scaling alone."""


@dataclass(frozen=True, eq=False)
class Arm:
    """One condition of one emotion, intervention and dose.

    Attributes:
        emotion: whose features are edited and whose readout is measured.
        intervention: what is done.
        strength: its dose.
        reported: the verdict is about this dose.
        name: which arm.
        set_index: which of several sets.
        features: latents that are edited.
        edit: the intervention on latents, and the texts of its side of the pairs.
        factor: by which the edit of latents was scaled.
        rows: those of the texts that are measured.
        job: what the meter measures; None where the stream is not edited.
        wanted: length that the chosen features write to these texts.
        prefix: a sentence put before each text.
    """

    emotion: str
    intervention: str
    strength: float
    reported: bool
    name: str
    set_index: int
    features: tuple[int, ...]
    edit: LatentEdit
    factor: float
    rows: Rows
    job: Job | None
    wanted: float
    prefix: str = ""

    @property
    def texts(self) -> Texts:
        """Texts of this side of the pairs."""
        return self.edit.texts

    @property
    def clusters(self) -> tuple[str, ...]:
        """Cluster of each text measured."""
        return self.texts.clusters(self.rows)


class ArmBuilder:
    """Makes the arms; what is fitted to the discovery part is fitted once for all emotions."""

    def __init__(self, study: EffectStudy) -> None:
        self.study = study
        self.wanted_arms = set(study.config.controls.arms)
        self.missing: dict[str, list[str]] = {}
        self._shuffled: list[dict[str, tuple[int, ...]]] | None = None
        self._bases: dict[tuple[int, bytes, str], Job] = {}
        self._directions: dict[tuple[str, str], Array] = {}

    def strengths(self, intervention: str) -> tuple[float, ...]:
        """The doses of an intervention; 0 alone where it has none."""
        config = self.study.config
        if intervention not in DOSED:
            return (0.0,)
        if intervention == "scale":
            return tuple(1 + d * (config.scale_factor - 1) for d in config.controls.doses)
        one = config.controls.add_strength if intervention == "add" else config.clamp_strength
        return tuple(d * one for d in config.controls.doses)

    def chosen_edit(
        self, intervention: str, strength: float, texts: Texts | None = None
    ) -> LatentEdit:
        """The intervention on its own side of the confirmation pairs, or on given texts."""
        return LatentEdit(
            self.study, texts or self.study.texts(side_of(intervention)), intervention, strength
        )

    def arms(self, chosen: FeatureSet, intervention: str, reported: float) -> list[Arm]:
        """Every arm of every dose; the full set of controls at the reported one."""
        out: list[Arm] = []
        for strength in self.strengths(intervention):
            one = _Maker(self, chosen, intervention, strength, reported=strength == reported)
            out += one.arms()
        return out

    def shuffled(self, emotion: str, n: int) -> list[tuple[int, ...]]:
        """Latents of an emotion by the selections on shuffled labels; empty ones left out."""
        if self._shuffled is None:
            study = self.study
            rng = np.random.default_rng([study.config.seed, 3])
            self._shuffled = shuffled_selections(
                study.searched, study.live, study.selection, study.config.controls.n_shuffled, rng
            )
        found = [s.get(emotion, ())[:n] for s in self._shuffled]
        return [s for s in found if s]

    def direction(self, name: str, emotion: str) -> Array:
        """A fitted direction, unit [d_model]; zero where the emotion has no discovery pair."""
        if (name, emotion) not in self._directions:
            study = self.study
            if name == "neurons":
                n_of = {s.emotion: len(s) for s in study.sets}
                found = neuron_directions(study.pair_means, n_of, study.selection)
            else:
                fit = probe_direction if name == "dense_probe" else difference_of_means
                found = {s.emotion: fit(study.pair_means, s.emotion) for s in study.sets}
            self._directions |= {(name, e): direction for e, direction in found.items()}
        return self._directions[name, emotion]

    def base(self, texts: Texts, rows: Rows, error: ErrorTerm) -> Job:
        """A job without edit; the same one for every emotion and intervention on these texts."""
        key = (id(texts), rows.tobytes(), error)
        if key not in self._bases:
            places = [int(r) for r in rows]
            self._bases[key] = Job([], self.study.config.scope, error=error, texts=places)
        return self._bases[key]

    def note_missing(self, arm: str, emotion: str) -> None:
        """Remember that an arm could not be made for an emotion."""
        if emotion not in self.missing.setdefault(arm, []):
            self.missing[arm].append(emotion)


class _Maker:
    """The arms of one emotion, intervention and dose."""

    def __init__(
        self,
        builder: ArmBuilder,
        chosen: FeatureSet,
        intervention: str,
        strength: float,
        *,
        reported: bool,
    ) -> None:
        self.builder, self.study = builder, builder.study
        self.chosen, self.intervention = chosen, intervention
        self.strength, self.reported = strength, reported
        self.edit = builder.chosen_edit(intervention, strength)
        self.texts = self.edit.texts
        self.rows = self.study.rows(chosen.emotion, intervention, self.texts)
        self.wanted = self.edit.total(tuple(chosen), self.rows)
        self.sign = predicted_sign(intervention, strength if intervention in DOSED else 1.0)

    def arms(self) -> list[Arm]:
        """Chosen and random ones; at the reported dose the others too."""
        asked, own = self.builder.wanted_arms, tuple(self.chosen)
        out = [self._arm("chosen", 0, own, self.edit.specs(own))]
        if "random" in asked:
            out += [self._latents("random", i, s) for i, s in enumerate(self._random_sets())]
        if not self.reported:
            return out
        out.append(self._arm("no_edit", 0, (), None))
        out += self._error_arms()
        if "shuffled_labels" in asked:
            sets = self.builder.shuffled(self.chosen.emotion, len(own))
            out += [self._latents("shuffled_labels", i, s) for i, s in enumerate(sets)]
            if not sets:
                self.builder.note_missing("shuffled_labels", self.chosen.emotion)
        out += list(self._direction_arms())
        if "prompt" in asked and self.sign > 0:
            out += self._prompts()
        return out

    def _arm(
        self,
        name: str,
        index: int,
        features: Sequence[int],
        specs: Specs | None,
        *,
        error: ErrorTerm = "keep",
        factor: float = 1.0,
        prefix: str = "",
    ) -> Arm:
        job = None
        if specs is not None and not specs:
            job = self.builder.base(self.texts, self.rows, error)
        elif specs is not None:
            rows = [int(r) for r in self.rows]
            job = Job(specs, self.study.config.scope, error=error, texts=rows)
        return Arm(
            self.chosen.emotion,
            self.intervention,
            self.strength,
            self.reported,
            name,
            index,
            tuple(features),
            self.edit,
            factor,
            self.rows,
            job,
            self.wanted,
            prefix,
        )

    def _latents(self, name: str, index: int, features: tuple[int, ...]) -> Arm:
        factor = self.edit.factor(features, self.rows, self.wanted)
        specs = self.edit.specs(features, factor)
        return self._arm(name, index, features, specs, factor=factor)

    def _random_sets(self) -> list[tuple[int, ...]]:
        study = self.study
        # All of them at every dose: a random set is held against the chosen one at its best.
        n = study.config.n_random_sets
        # The same draws for every intervention, so that their arms can be compared.
        place = study.column(self.chosen.emotion)
        rng = np.random.default_rng([study.config.seed, 2, place])
        reached = self.intervention in ("clamp", "min_clamp", "add")
        n_draws = n if reached else _DRAWS * n
        drawn = random_sets(study.stats, self.chosen, study.excluded, n_draws, rng)
        if reached:
            return drawn
        return nearest_in_norm(drawn, lambda s: self.edit.total(s, self.rows), self.wanted, n)

    def _error_arms(self) -> list[Arm]:
        asked, own = self.builder.wanted_arms, tuple(self.chosen)
        specs = self.edit.specs(own)
        out = []
        if asked & {"splice", "no_error"}:
            out.append(self._arm("splice", 0, (), [], error="drop"))
        if "no_error" in asked:
            out.append(self._arm("chosen_no_error", 0, own, specs, error="drop"))
        if "error_only" in asked:
            out.append(self._arm("error_only", 0, (), [], error="only"))
            out.append(self._arm("chosen_error_only", 0, own, specs, error="only"))
        return out

    def _direction_arms(self) -> Iterator[Arm]:
        asked, study = self.builder.wanted_arms, self.study
        emotion = self.chosen.emotion
        n_tokens = len(self.texts.tokens_of(self.rows))
        length = self.wanted / n_tokens if n_tokens else 0.0

        def arm(name: str, index: int, direction: Array) -> Arm:
            return self._arm(name, index, (), [AddDirection(length * direction)])

        if "random_direction" in asked:
            place = study.column(emotion)
            rng = np.random.default_rng([study.config.seed, 4, place])
            for index in range(study.config.controls.n_directions):
                yield arm("random_direction", index, unit(rng.standard_normal(study.lm.d_model)))
        for name in ("diff_of_means", "dense_probe", "neurons"):
            if name not in asked:
                continue
            direction = self.builder.direction(name, emotion)
            if direction.any():
                yield arm(name, 0, self.sign * direction)
            else:
                self.builder.note_missing(name, emotion)

    def _prompts(self) -> list[Arm]:
        name = self.study.readout.names[self.study.column(self.chosen.emotion)]
        named, twin = prompt_pair(self.study.lm, name)
        return [
            self._arm("prompt", 0, (), None, prefix=named),
            self._arm("prompt_neutral", 0, (), None, prefix=twin),
        ]


PROMPT = "What follows is a text about {}.\n"
_SUBJECTS = (
    "paper", "furniture", "the weather", "a table", "the alphabet", "office work", "numbers",
    "stationery", "a timetable", "ordinary things", "the arrangement of shelves", "a list of dates",
)  # fmt: skip


def prompt_pair(lm: LanguageModel, emotion: str) -> tuple[str, str]:
    """A sentence that names an emotion, and one of as many tokens that names none.

    Of a dozen neutral subjects the first is taken whose sentence is nearest in tokens.
    """
    named = PROMPT.format("strong emotion" if emotion == "all" else emotion)
    n = len(lm.token_ids(named))
    twins = [PROMPT.format(subject) for subject in _SUBJECTS]
    lengths = [abs(len(lm.token_ids(twin)) - n) for twin in twins]
    return named, twins[int(np.argmin(lengths))]
