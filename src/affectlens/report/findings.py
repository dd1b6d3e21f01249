"""Says in plain words what a run found, and as plainly when it found nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from affectlens.display.arms import INTERVENTION_WORDS
from affectlens.display.words import (
    ALL,
    capital,
    contrast_label,
    listing,
    number,
    plural,
    probability,
    sentence,
    visible,
)
from affectlens.features.chance import Chance, wins_by_chance
from affectlens.features.results import SearchSummary

from .baselines import NAMES, SAME, WORSE, verdicts_on
from .classes import CONTROLS, SHOWN, counts, strict_lines
from .finding import Finding, Tone
from .findings_causal import causal_findings
from .loading import ALPHA, RunData, load_run
from .readout_check import doubtful_readouts

NOT_DETECTABLE = 100.0
"""A minimum detectable d_z from here on means that no effect could have passed."""

WORDS, PROBE = NAMES["tfidf_words"], "a probe without the SAE"
TOPIC = (
    "Words are compared on whole texts, where the topic helps them; the features were chosen on "
    "differences between twins, where it cancels."
)
"""Why words have it easier on single emotions."""
RIVAL = "a best feature chosen in the same way"
"""What a simpler method is compared with: folds choose the feature anew, so it is no given one."""


def findings(run: Path) -> list[str]:
    """The main findings of a run, each as one or a few sentences.

    Raises:
        ArtifactError: `run` is not a run folder, or a file in it is broken.
    """
    return [visible(finding.text) for finding in main_findings(load_run(run))]


def main_findings(data: RunData) -> list[Finding]:
    """What tells emotional from neutral, what is specific to one emotion, what editing does.

    Then, where these were made: the screen, mediation and the steering study.
    """
    first = (
        replace(any_emotion(data), question="Do features respond to emotion?"),
        replace(one_emotion(data), question="To one emotion more than to the others?"),
        replace(effects(data), question="Does editing them change what the model says?"),
    )
    return [*first, *causal_findings(data)]


def any_emotion(data: RunData) -> Finding:
    """Features that tell emotional texts from their neutral twins."""
    summary = data.summary
    if summary is None:
        return Finding(
            "missing", "No search was run.", "Run the search stage to look for features."
        )
    n = summary.n_confirmed.get(ALL, 0)
    found = summary.n_significant_fwer.get(ALL, 0)
    tested = (
        f"Of {plural(summary.n_tested, 'feature')} tested, {found:,} passed the correction for "
        f"many tests (family-wise, max-T, within this search) on the discovery scenes. "
        f"{_confirmation(summary, n)}"
    )
    value, unit = f"{n:,}", f"of {plural(summary.n_tested, 'feature')} confirmed"
    if n == 0:
        return Finding(
            "none",
            "No feature was confirmed to tell emotional texts from their neutral twins.",
            f"{tested} {power_remark(summary)}",
            value,
            unit,
            sure=power_remark(summary),
        )
    caveat = _caveat(data, summary)
    strict = " ".join(strict_lines(data, [ALL]))
    tells = "tells" if n == 1 else "tell"
    headline = (
        f"{plural(n, 'feature')} {tells} emotional texts from their neutral twins"
        f"{_classes(data)}. {_beside(data)}"
    )
    stay = _stay(summary, [ALL])
    detail = " ".join(part for part in (tested, stay, strict, caveat) if part)
    return Finding(
        _tone(data, summary, caveat), headline.strip(), detail, value, unit, sure=stay or tested
    )


def _tone(data: RunData, summary: SearchSummary, caveat: str) -> Tone:
    """'found' only if nothing is held against the features and at least one needs context."""
    words, found = verdicts_on(data, "tfidf_words").get(ALL), counts(data, ALL)
    beaten = words in (WORSE, SAME) or not found.get("contextual") or _none_stays(summary, [ALL])
    return "mixed" if caveat or beaten else "found"


def _caveat(data: RunData, summary: SearchSummary) -> str:
    """What is held against every feature of the search."""
    said = []
    if summary.lexical_warning:
        too = "also tell" if data.card is None or data.card.words_suffice else "may also tell"
        said.append(f"But words alone {too} these texts apart (see the warning)")
        said[0] += "." if counts(data, ALL) else ", so this is not yet evidence of emotion."
    if data.table(CONTROLS) is None:
        said.append("Whether they follow meaning or merely words was not tested (no controls).")
    return " ".join(said)


def _classes(data: RunData) -> str:
    """'; 3 are contextual, 16 mixed, none lexical'; '' if the controls were not run."""
    found = counts(data, ALL)
    if not found:
        return ""
    said = [f"{found[kind]:,} {kind}" if found[kind] else f"none {kind}" for kind in SHOWN]
    verb = "is" if found[SHOWN[0]] < 2 else "are"
    return f"; {', '.join([said[0].replace(' ', f' {verb} ', 1), *said[1:]])}"


def _beside(data: RunData) -> str:
    """Where methods without the SAE stand beside a best feature; '' where none is in reach."""
    words = verdicts_on(data, "tfidf_words").get(ALL)
    better = [WORDS] * (words == WORSE)
    better += [PROBE] * (verdicts_on(data, "dense_probe").get(ALL) == WORSE)
    if words == SAME:
        probe = f", and {PROBE} separates the texts better" if better else ""
        return sentence(f"{WORDS} are not distinguishable from {RIVAL}{probe}")
    verb = "separates" if better == [PROBE] else "separate"
    return sentence(f"{listing(better)} {verb} the texts better than {RIVAL}") if better else ""


def _confirmation(summary: SearchSummary, n_held: int) -> str:
    retained = summary.n_retained.get(ALL, 0)
    if untried := _untried(summary, [ALL]):
        return untried
    again = "was" if retained == 1 else "were"
    return f"The best {retained} {again} tested again on scenes kept aside, and {n_held} held."


def _untried(summary: SearchSummary, contrasts: Sequence[str]) -> str:
    """Why no candidate of these searches was tested again; '' where one was."""
    if summary.n_pairs_confirmation == 0:
        return "No scenes were kept aside, so nothing was tested again."
    if not any(summary.n_retained.get(c, 0) for c in contrasts):
        return "No candidate was left to test again."
    return ""


def _stay(summary: SearchSummary, contrasts: Sequence[str]) -> str:
    """How many findings stay confirmed if all searches share one level; '' if not recorded."""
    kept = summary.n_confirmed_family
    if not kept or len(kept) < 2:
        return ""
    n, of = (sum(counts.get(c, 0) for c in contrasts) for counts in (kept, summary.n_confirmed))
    said = f"Corrected over all {len(kept)} searches together, {n or 'none'} of the {of:,} "
    said += "stays" if n < 2 else "stay"
    factor = len(kept)
    reach = [
        summary.confirm_min_p.get(c, 0.0) * summary.n_retained.get(c, 0) * factor for c in contrasts
    ]
    no_hope = bool(reach) and min(reach) > summary.alpha
    return f"{said} confirmed{' (none could: the scenes kept aside are too few)' * no_hope}."


def _none_stays(summary: SearchSummary, contrasts: Sequence[str]) -> bool:
    kept = summary.n_confirmed_family
    return bool(kept) and not any(kept.get(c, 0) for c in contrasts)


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
        tried = _untried(summary, summary.emotions) or (
            f"{plural(retained, 'candidate')} over {plural(len(hits), 'emotion')} went into "
            "confirmation and none held."
        )
        return Finding(
            "none",
            "No feature was confirmed to respond to one emotion more than to the others.",
            f"{tried} {power_remark(summary, summary.emotions)}",
            value,
            unit,
            sure=power_remark(summary, summary.emotions),
        )
    named = listing([f"{e} ({_hits(data, e, hits[e])})" for e in with_hits])
    without = [e for e in hits if not hits[e]]
    rest = (
        f"Nothing was confirmed for {listing(without)}."
        if without
        else "Every emotion has at least one."
    )
    held = _held_against(data, with_hits)
    flaw = held or _none_stays(summary, with_hits)
    stay = _stay(summary, with_hits)
    parts = (sentence(named), rest, _levels(summary), stay, _specific(data))
    return Finding(
        "mixed" if without or flaw else "found",
        f"Features that respond to one emotion more than to the others were confirmed for "
        f"{len(with_hits)} of {plural(len(hits), 'emotion')}. {held}".strip(),
        " ".join(part for part in (*parts, TOPIC * ("TF-IDF" in held)) if part),
        value,
        unit,
        sure=stay or _levels(summary),
    )


def _levels(summary: SearchSummary) -> str:
    """What a level of its own for each emotion means."""
    n, alpha = len(summary.emotions), summary.alpha
    if n < 2:
        return ""
    return (
        f"Each of {n} emotions was tested at a level of its own: where nothing is to be found, one "
        f"or more is still confirmed in up to {min(1, n * alpha):.0%} of runs; and an emotion "
        "whose effects scatter more passes too often (docs/calibration.md)."
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
            whom = "" if len(none) == len(emotions) else f" for {listing(none)}"
            parts.append(f"none of them is contextual{whom}")
    words = verdicts_on(data, "tfidf_words")
    beaten = [e for e in emotions if words.get(e) == WORSE]
    if beaten:
        whom = "each of these emotions" if len(beaten) == len(emotions) > 1 else listing(beaten)
        parts.append(f"{WORDS} separate {whom} better than {RIVAL}")
    return sentence(", and ".join(parts))


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


def power_remark(summary: SearchSummary, contrasts: Sequence[str] = (ALL,)) -> str:
    """What searches of this size could have seen, by the most sensitive of `contrasts`."""
    if not summary.n_tested:
        return "No feature was tested."
    seen = [summary.min_detectable[c] for c in contrasts if c in summary.min_detectable]
    least = min(seen, default=summary.min_detectable_d_z)
    if not least < NOT_DETECTABLE:
        return "With this many texts no single feature could have passed, whatever its size."
    return (
        f"With this many texts only large effects (d_z of about {number(least)} or more) would "
        "have been seen reliably, so smaller ones cannot be ruled out."
    )


def effects(data: RunData) -> Finding:
    """What editing the features does to the model’s own emotional output."""
    verdicts = data.verdicts
    if verdicts is None or verdicts.empty:
        return Finding(
            "missing", "No intervention was run.", "What the features do to the output is unknown."
        )
    alpha = data.effects_summary.alpha if data.effects_summary else ALPHA
    chance = wins_by_chance(verdicts, alpha)
    n_cases, n_wins, n_random = chance.n, chance.n_won, int(verdicts.n_random.max())
    value, unit = str(n_wins), f"of {plural(n_cases, 'edit')} beat random features"
    lost = len(verdicts) - n_cases
    left_out = (
        f" {plural(lost, 'further test')} could not have passed, with too few scene groups."
        if lost
        else ""
    )
    if n_wins == 0:
        absent = (
            "Not shown is not absent: only an effect that is steady over scenes and above every "
            "one of the random sets could pass."
        )
        return Finding(
            "none",
            "It is not shown that editing the chosen features moves the model’s emotional output "
            "more than editing random features.",
            f"{plural(n_cases, 'test')} (emotion × intervention), each against {n_random} "
            f"matched random sets; none passed.{left_out} {absent}",
            value,
            unit,
            sure=absent,
        )
    parts = [
        _one_intervention(str(name), part)
        for name, part in verdicts.groupby("intervention", sort=False)
    ]
    return Finding(
        "found" if n_wins == n_cases and verdicts.beats_controls.all() else "mixed",
        f"Editing the chosen features moved the model’s emotional output more than random "
        f"features in "
        f"{n_wins} of {plural(n_cases, 'test')}.",
        " ".join([*parts, _by_chance(chance), _against_all(verdicts, data)])
        + left_out
        + _readout_remark(data),
        value,
        unit,
        sure=_by_chance(chance),
    )


def _by_chance(chance: Chance) -> str:
    return (
        f"Features no better than random ones would win up to {number(chance.expected, 1)} of "
        f"these {chance.n} on average, and as many or more with probability "
        f"{probability(chance.p)}."
    )


def _against_all(verdicts: pd.DataFrame, data: RunData) -> str:
    """What stays against every other edit of equal norm, and after correction over all tests."""
    alpha = data.effects_summary.alpha if data.effects_summary else ALPHA
    won = verdicts[verdicts.beats_random]
    beyond = int(won.beats_controls.sum())
    kept = int((won.p_family <= alpha).sum())
    return (
        f"Of these {beyond or 'none'} also {'beats' if beyond < 2 else 'beat'} every other edit of "
        "equal norm (directions, probe, neurons, shuffled selections); corrected over all tests of "
        f"the run, {kept or 'none'} {'stays' if kept < 2 else 'stay'}."
    )


def _one_intervention(name: str, part: pd.DataFrame) -> str:
    winners = part[part.beats_random]
    subject = capital(INTERVENTION_WORDS.get(name, name))
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
