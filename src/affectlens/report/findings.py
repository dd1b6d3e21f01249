"""Says in plain words what a run found, and as plainly when it found nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from affectlens.features.results import SearchSummary

from .baselines import SAME, WORSE, verdicts_on
from .classes import ALL, CONTROLS, counted, counts, strict_lines
from .loading import RunData, load_run
from .text import contrast_label, listing, number, plural, sentence, visible

Tone = Literal["found", "mixed", "none", "missing"]

NOT_DETECTABLE = 100.0
"""A minimum detectable d_z from here on means that no effect could have passed."""

INTERVENTION_WORDS = {
    "ablate_zero": "switching the features off",
    "ablate_neutral": "setting the features to their value on neutral text",
    "clamp": "turning the features up",
    "scale": "scaling the features",
}
"""What each intervention does, as the subject of a sentence."""


@dataclass(frozen=True)
class Finding:
    """One main finding: tone, a headline that can stand alone, its numbers, and one big number."""

    tone: Tone
    headline: str
    detail: str
    value: str = "–"
    unit: str = ""

    @property
    def text(self) -> str:
        """Headline and detail as one paragraph."""
        return f"{self.headline} {self.detail}".strip()


def findings(run: Path) -> list[str]:
    """The three main findings of a run, each as one or a few sentences.

    Raises:
        ArtifactError: `run` is not a run folder, or a file in it is broken.
    """
    return [visible(finding.text) for finding in main_findings(load_run(run))]


def main_findings(data: RunData) -> list[Finding]:
    """What tells emotional from neutral, what is specific to one emotion, what editing does."""
    return [any_emotion(data), one_emotion(data), effects(data)]


def any_emotion(data: RunData) -> Finding:
    """Features that tell emotional texts from their neutral twins."""
    summary = data.summary
    if summary is None:
        return Finding(
            "missing", "No search was run.", "Run the search stage to look for features."
        )
    n = summary.n_confirmed.get(ALL, 0)
    found = summary.n_significant_fwer.get("all", 0)
    tested = (
        f"Of {plural(summary.n_tested, 'feature')} tested, {found:,} passed the correction for "
        f"many tests (family-wise, max-T) on the discovery scenes. {_confirmation(summary, n)}"
    )
    value, unit = f"{n:,}", f"of {plural(summary.n_tested, 'feature')} confirmed"
    if n == 0:
        return Finding(
            "none",
            "No feature was confirmed to tell emotional texts from their neutral twins.",
            f"{tested} {power_remark(summary)}",
            value,
            unit,
        )
    caveat = _caveat(data, summary)
    strict = " ".join(strict_lines(data, [ALL]))
    tells = "tells" if n == 1 else "tell"
    headline = (
        f"{plural(n, 'feature')} {tells} emotional texts from their neutral twins"
        f"{_classes(data)}{_beside(data)}."
    )
    return Finding(
        _tone(data, caveat), headline, f"{tested} {strict} {caveat}".strip(), value, unit
    )


def _tone(data: RunData, caveat: str) -> Tone:
    """'found' only if nothing is held against the features and at least one needs context."""
    words, found = verdicts_on(data, "tfidf_words").get(ALL), counts(data, ALL)
    beaten = words in (WORSE, SAME) or not found.get("contextual")
    return "mixed" if caveat or beaten else "found"


def _caveat(data: RunData, summary: SearchSummary) -> str:
    """What is held against every feature of the search."""
    said = []
    if summary.lexical_warning:
        said.append("But words alone also tell these texts apart (see the warning)")
        said[0] += "." if counts(data, ALL) else ", so this is not yet evidence of emotion."
    if data.table(CONTROLS) is None:
        said.append("Whether they follow meaning or merely words was not tested (no controls).")
    return " ".join(said)


def _classes(data: RunData) -> str:
    """': 3 contextual, 16 mixed and 0 lexical'; '' if the controls were not run."""
    found = counts(data, ALL)
    return f": {counted(found)}" if found else ""


def _beside(data: RunData) -> str:
    """Where methods without the SAE stand beside the best feature; '' where none is in reach."""
    words = verdicts_on(data, "tfidf_words").get(ALL)
    if words == WORSE:
        return ", but words alone (TF-IDF) separate the texts better than the best of them"
    same = words == SAME
    probe = verdicts_on(data, "dense_probe").get(ALL) == WORSE
    parts = ["words alone (TF-IDF) separate the texts about as well as the best of them"] * same
    parts += ["a probe without the SAE separates them better"] * probe
    return f", but {listing(parts)}" if parts else ""


def _confirmation(summary: SearchSummary, n_held: int) -> str:
    retained = summary.n_retained.get("all", 0)
    if retained == 0:
        return "None could be tested again: the scenes kept aside are too few for any to pass."
    again = "was" if retained == 1 else "were"
    return f"The best {retained} {again} tested again on scenes kept aside, and {n_held} held."


def one_emotion(data: RunData) -> Finding:
    """Features that respond to one emotion more than to the others."""
    summary = data.summary
    if summary is None:
        return Finding("missing", "No search for single emotions was run.", "")
    hits = {e: summary.n_confirmed.get(e, 0) for e in summary.emotions}
    with_hits = [e for e, n in hits.items() if n]
    value, unit = str(len(with_hits)), f"of {plural(len(hits), 'emotion')} with a confirmed feature"
    if not with_hits:
        retained = sum(summary.n_retained.get(e, 0) for e in summary.emotions)
        tried = (
            f"{plural(retained, 'candidate')} over {plural(len(hits), 'emotion')} went into "
            "confirmation and none held."
            if retained
            else "The scenes kept aside are too few for any candidate to pass confirmation."
        )
        return Finding(
            "none",
            "No feature was confirmed to respond to one emotion more than to the others.",
            f"{tried} {power_remark(summary)}",
            value,
            unit,
        )
    named = listing([f"{e} ({_hits(data, e, hits[e])})" for e in with_hits])
    without = [e for e in hits if not hits[e]]
    rest = (
        f"Nothing was confirmed for {listing(without)}."
        if without
        else "Every emotion has at least one."
    )
    held = _held_against(data, with_hits)
    return Finding(
        "mixed" if without or held else "found",
        f"Features that respond to one emotion more than to the others were confirmed for "
        f"{len(with_hits)} of {plural(len(hits), 'emotion')}{held}.",
        f"{sentence(named)} {rest} {_specific(data)}".strip(),
        value,
        unit,
    )


def _hits(data: RunData, emotion: str, n: int) -> str:
    """'3', or '1 contextual, 2 mixed' where the controls were run."""
    found = {kind: k for kind, k in counts(data, emotion).items() if k}
    return ", ".join(f"{k} {kind}" for kind, k in found.items()) or str(n)


def _held_against(data: RunData, emotions: list[str]) -> str:
    """What speaks against the features of single emotions; '' if nothing does, or is known."""
    parts = []
    if data.table(CONTROLS) is not None:
        none = [e for e in emotions if not counts(data, e)["contextual"]]
        if none:
            parts.append(f"none is contextual for {_named(none, emotions, 'any')}")
    words = verdicts_on(data, "tfidf_words")
    beaten = [e for e in emotions if words.get(e) == WORSE]
    if beaten:
        parts.append(
            f"for {_named(beaten, emotions, 'all')} words alone (TF-IDF) separate the emotion "
            "better than its best feature"
        )
    return f", but {listing(parts)}" if parts else ""


def _specific(data: RunData) -> str:
    """How many confirmed features surely exceed every single other emotion; '' if not tested."""
    table, features = data.table("validity/specific"), data.features
    if table is None or features is None:
        return ""
    rows = table.loc[table["part"] == "confirmation", ["selected_for", "feature", "verdict"]]
    confirmed = features.loc[features["confirmed"], ["contrast", "feature"]]
    rows = rows.merge(
        confirmed, left_on=["selected_for", "feature"], right_on=["contrast", "feature"]
    )
    if rows.empty:
        return ""
    held = int((rows["verdict"] == "holds").sum())
    return (
        f"Of {plural(len(rows), 'such feature')} {held or 'none'} "
        f"{'is' if held < 2 else 'are'} shown to exceed every single other emotion, which alone "
        "would make one specific."
    )


def _named(some: list[str], every: list[str], word: str) -> str:
    """'all of these' where some are every one of several, else their names."""
    return f"{word} of these" if len(some) == len(every) > 1 else listing(some)


def power_remark(summary: SearchSummary) -> str:
    """What a search of this size could have seen."""
    if not summary.min_detectable_d_z < NOT_DETECTABLE:
        return "With this many texts no single feature could have passed, whatever its size."
    return (
        "With this many texts only large effects (d_z of about "
        f"{number(summary.min_detectable_d_z)} or more) would have been seen reliably, so smaller "
        "ones cannot be ruled out."
    )


def effects(data: RunData) -> Finding:
    """What editing the features does to the model’s own emotional output."""
    verdicts = data.verdicts
    if verdicts is None or verdicts.empty:
        return Finding(
            "missing", "No intervention was run.", "What the features do to the output is unknown."
        )
    n_cases, n_wins = len(verdicts), int(verdicts.beats_random.sum())
    n_random = int(verdicts.n_random.max())
    value, unit = str(n_wins), f"of {plural(n_cases, 'edit')} beat random features"
    if n_wins == 0:
        return Finding(
            "none",
            "Editing the chosen features moved the model’s emotional output no more than editing "
            "random features.",
            f"{plural(n_cases, 'test')} (emotion × intervention), each against {n_random} "
            f"matched random sets; "
            "none passed.",
            value,
            unit,
        )
    parts = [
        _one_intervention(str(name), part)
        for name, part in verdicts.groupby("intervention", sort=False)
    ]
    return Finding(
        "found" if n_wins == n_cases else "mixed",
        f"Editing the chosen features moved the model’s emotional output more than random "
        f"features in "
        f"{n_wins} of {plural(n_cases, 'test')}.",
        " ".join(parts) + _readout_remark(data),
        value,
        unit,
    )


def _one_intervention(name: str, part: pd.DataFrame) -> str:
    winners = part[part.beats_random]
    subject = sentence(INTERVENTION_WORDS.get(name, name)).rstrip(".")
    if winners.empty:
        return f"{subject}: no emotion of {len(part)}."
    strongest = winners.loc[winners.advantage.idxmax()]
    largest = f"largest: {contrast_label(str(strongest.emotion))}, " if len(winners) > 1 else ""
    return (
        f"{subject}: {listing([contrast_label(str(e)) for e in winners.emotion])} ({largest}"
        f"{number(strongest.effect, sign=True)} nats against "
        f"{number(strongest.random_mean, sign=True)} for "
        "random features)."
    )


def _readout_remark(data: RunData) -> str:
    doubtful = doubtful_readouts(data)
    won = (
        set()
        if data.verdicts is None
        else set(data.verdicts.loc[data.verdicts.beats_random, "emotion"])
    )
    named = [e for e in doubtful if e in won]
    if not named:
        return ""
    names = listing([contrast_label(e) for e in named])
    return f" The measure itself is doubtful for {names}, see the readout check."


def doubtful_readouts(data: RunData) -> list[str]:
    """Emotions whose readout does not rise on their own texts (p above alpha, or wrong sign)."""
    if data.readout is None:
        return []
    alpha = data.effects_summary.alpha if data.effects_summary else 0.05
    passed = (data.readout.p <= alpha) & (data.readout.mean_diff > 0)
    return [str(e) for e in data.readout.loc[~passed, "emotion"]]
