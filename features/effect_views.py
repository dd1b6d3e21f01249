"""What interventions and the steering study show of themselves: cards and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pandas as pd

from affectlens.data.errors import ConfigError
from affectlens.display.cards import Card, Shown, first_rows
from affectlens.display.words import ALL, contrast_label, listed, number, plural
from affectlens.features.effect_columns import FEWEST_CLUSTERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from affectlens.features.effects import EffectResult
    from affectlens.features.steering_study import SteeringStudy

_DOSE_UNITS = {
    "residual_norm": "(times the residual’s norm)",
    "max_activation": "(times each latent’s maximum)",
    "max_activation_floor": "(times each latent’s maximum, as a floor)",
}


class EffectViews(Shown):
    """Card and figures of interventions."""

    @property
    def plot(self) -> EffectPlots:
        """Figures on matplotlib axes: `forest`, `doses`, `matrix`."""
        return EffectPlots(cast("EffectResult", self))

    def _card(self) -> Card:
        return effect_card(cast("EffectResult", self))


class EffectPlots:
    """Figures of interventions; each takes axes or makes a figure, and returns the axes.

    `intervention` is one that was made; None takes the first that the table has.
    """

    def __init__(self, effect: EffectResult) -> None:
        self._effect = effect

    def forest(self, intervention: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Effect of the chosen features beside every control, an emotion a row.

        Raises:
            ConfigError: that intervention has no verdicts.
        """
        from affectlens.display.effect_figures import forest

        name, verdicts = _of(self._effect.verdicts, intervention, "verdicts")
        table = self._effect.table
        own = table[(table["intervention"] == name) & table["reported"].astype(bool)]
        return forest(own, verdicts, intervention=name, ax=ax)

    def doses(self, intervention: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Effect dose by dose, chosen features and random sets.

        Raises:
            ConfigError: that intervention has no doses.
        """
        from affectlens.display.effect_figures import doses

        name, own = _of(self._effect.doses, intervention, "doses")
        verdicts = self._effect.verdicts
        n_texts = int(verdicts.loc[verdicts["intervention"] == name, "n_items"].max())
        return doses(own, intervention=name, n_texts=n_texts, ax=ax)

    def matrix(self, intervention: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Edited against read emotions.

        Raises:
            ConfigError: no matrix was made of that intervention.
        """
        from affectlens.display.effect_figures import matrix

        name, own = _of(self._effect.matrix, intervention, "a matrix")
        return matrix(own, intervention=name, alpha=self._effect.summary.alpha, ax=ax)


def _of(table: pd.DataFrame, intervention: str | None, what: str) -> tuple[str, pd.DataFrame]:
    """Rows of an intervention, by default the first."""
    known = list(dict.fromkeys(table["intervention"].astype(str)))
    if not known:
        raise ConfigError(f"there is {what.removeprefix('a ')} of no intervention in this result")
    name = intervention or known[0]
    if name not in known:
        raise ConfigError(f"got intervention {name!r}; there is {what} of {', '.join(known)}")
    return name, table[table["intervention"] == name]


def effect_card(effect: EffectResult) -> Card:
    """What was edited and read, how many effects pass, and what the design could not tell."""
    s, verdicts = effect.summary, effect.verdicts
    n = len(verdicts)
    facts = {
        "readouts": listed([contrast_label(e) for e in s.emotions], 10),
        "interventions": ", ".join(s.interventions),
        "controls": f"{plural(s.n_random_sets, 'random set')} of equal norm; {listed(s.arms, 12)}",
    }
    if n:
        family = int((verdicts["p_family"] <= s.alpha).sum())
        facts |= {
            "beat the random sets": f"{int(verdicts['beats_random'].sum())} of {n}",
            "also beat every other control": f"{int(verdicts['beats_controls'].sum())} of {n}",
            f"p ≤ {s.alpha:g} over all {s.n_tests} tests": f"{family} of {n}",
        }
    columns = {
        "emotion": "readout",
        "intervention": "intervention",
        "effect": "effect (nats)",
        "random_mean": "random sets",
        "advantage": "advantage",
        "p_holm": "p (Holm)",
        "beats_random": "beats random",
        "beats_controls": "beats all",
        "n_items": "texts",
    }
    return Card(
        "EffectResult",
        f"what editing features does to the emotional readout, {plural(s.n_pairs, 'pair')} of the "
        "confirmation part",
        facts,
        " ".join(_effect_warnings(effect)),
        first_rows(verdicts, "effect.verdicts", columns),
        {
            "effect.verdicts": "chosen features against matched random ones",
            "effect.plot.forest()": "every arm; or .doses, .matrix",
            "effect.table": "one row a condition",
            "effect.mediation": "shares that run through the features",
            "effect.damage": "what it costs on neutral text",
        },
    )


def _effect_warnings(effect: EffectResult) -> list[str]:
    s, verdicts, said = effect.summary, effect.verdicts, []
    if len(verdicts) and not verdicts["beats_random"].any():
        said.append("Nothing is shown: no effect beats its random sets.")
    few = verdicts[verdicts["n_clusters"] < FEWEST_CLUSTERS] if len(verdicts) else verdicts
    if len(few):
        names = listed([contrast_label(str(e)) for e in dict.fromkeys(few["emotion"])])
        said.append(
            f"{plural(len(few), 'verdict')} rest on fewer than {FEWEST_CLUSTERS} scene groups and "
            f"can hardly show anything ({names})."
        )
    lost = {arm: names for arm, names in s.missing_arms.items() if names}
    if lost:
        said.append(f"Arms that could not be made: {', '.join(lost)}.")
    if s.misfits:
        said.append(f"Misfits were overridden: {'; '.join(s.misfits)}.")
    return said


class StudyViews(Shown):
    """Card and figures of a steering study."""

    @property
    def plot(self) -> StudyPlots:
        """Figures on matplotlib axes: `tradeoff`, `doses`."""
        return StudyPlots(cast("SteeringStudy", self))

    def _card(self) -> Card:
        return study_card(cast("SteeringStudy", self))


class StudyPlots:
    """Figures of a steering study; each takes axes or makes a figure, and returns the axes."""

    def __init__(self, study: SteeringStudy) -> None:
        self._study = study

    def tradeoff(self, *, ax: Axes | None = None) -> Axes:
        """Probability of the emotion against coherence, every arm at its chosen dose."""
        from affectlens.display.study_figures import tradeoff

        return tradeoff(self._study.ranking, ax=ax)

    def doses(self, emotion: str = ALL, *, score: str = "overall", ax: Axes | None = None) -> Axes:
        """A score dose by dose, for one emotion or the mean over emotions.

        Raises:
            ConfigError: an unknown emotion or score.
        """
        from affectlens.display.study_figures import doses

        curves = self._study.curves
        emotions = [*dict.fromkeys(curves["emotion"].astype(str)), ALL]
        scores = ("overall", "concept", "coherence", "on_topic", "concept_masked", "hit", "naming")
        if emotion not in emotions or score not in scores:
            raise ConfigError(
                f"got emotion {emotion!r}, score {score!r}; need one of {', '.join(emotions)} and "
                f"one of {', '.join(scores)}"
            )
        unit = _DOSE_UNITS.get(str(self._study.summary.settings.get("dose_unit")), "")
        own = curves[curves["half"] == "report"]
        return doses(own, emotion=emotion, score=score, unit=unit, ax=ax)


def study_card(study: SteeringStudy) -> Card:
    """Which ways of steering were compared, which came first, and what is shown."""
    s, ranking = study.summary, study.ranking
    facts = {
        "emotions": listed(s.emotions, 10),
        "scenarios": f"{s.n_select} chose the dose, {s.n_report} are reported",
        "texts": f"{s.n_texts:,}, {s.n_empty:,} of them empty",
    }
    if len(ranking):
        first = ranking.sort_values("rank").iloc[0]
        facts["highest overall score"] = (
            f"{first['arm']}, {number(float(first['overall']))} "
            f"({number(float(first['overall_low']))} to {number(float(first['overall_high']))})"
        )
    said: list[str] = []
    for r in study.wins.to_dict("records"):
        score = f", {r['score']}" if "score" in r else ""
        facts[f"{r['arm']} beats input-side choice and random{score}"] = (
            f"{r['wins']} of {r['n_emotions']} emotions (bar {r['bar']})"
        )
        if r["min_p_holm"] > s.alpha:
            said.append(
                f"For {r['arm']}{score} nothing could be shown: the smallest corrected p that this "
                f"design can give is {r['min_p_holm']:.2g}."
            )
    if s.misfits:
        said.append(f"Misfits were overridden: {'; '.join(s.misfits)}.")
    columns = ["rank", "arm", "overall", "concept", "coherence", "on_topic", "naming"]
    return Card(
        "SteeringStudy",
        f"{plural(len(ranking), 'way')} of steering, compared on texts that {s.model} wrote",
        facts,
        " ".join(said),
        first_rows(ranking, "study.ranking", columns),
        {
            "study.ranking": "arms by overall score",
            "study.plot.tradeoff()": "emotion against coherence; or .doses",
            "study.comparisons": "arm against arm, with p",
            "study.texts": "every text with its scores",
        },
    )
