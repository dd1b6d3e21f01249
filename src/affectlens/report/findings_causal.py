"""The main findings on causes: what moves the output, what runs through the features, steering."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from affectlens.display.arms import study_arm
from affectlens.display.words import ALL, listing, number, plural

from .finding import Finding, Tone
from .loading import RunData
from .mediation import MEDIATION, share_through
from .screening import SCREEN, TOP, overlap_sentence, overlaps
from .study import OVERALL, RANKING, WINS, best_sae, overall, row_of, wins_lines


def causal_findings(data: RunData) -> list[Finding]:
    """One for each of screen, mediation and steering study that was made."""
    made = {
        "Do those that respond also move the output?": screened(data),
        "Does the model’s own emotion run through them?": mediated(data),
        "Which way of steering works?": steered(data),
    }
    return [replace(finding, question=asked) for asked, finding in made.items() if finding]


def screened(data: RunData) -> Finding | None:
    """Whether what responds to an emotion also moves the output; None without a screen."""
    table = data.rows(SCREEN)
    if table is None:
        return None
    found = overlaps(table)
    own = [o for o in found if o.contrast != ALL] or found
    shared, n = sum(len(o.both) for o in own), sum(len(o.by_input) for o in own)
    if shared:
        headline = (
            f"{shared} of {plural(n, 'feature')} that respond most to an emotion "
            f"{'is' if shared == 1 else 'are'} also among those that move its readout most."
        )
    else:
        headline = "No feature that responds most to an emotion is among those that move it most."
    return Finding(
        "mixed" if shared else "none",
        headline,
        f"{overlap_sentence(found)} A screen on discovery texts: it ranks, and tests nothing.",
        str(shared),
        f"of {plural(n, 'detector')} also {'a lever' if shared == 1 else 'levers'} (top {TOP})",
        sure="A screen on discovery texts: it ranks, and tests nothing.",
    )


def mediated(data: RunData) -> Finding | None:
    """How much of the difference runs through the features; None where it was not measured."""
    table = data.rows(MEDIATION)
    if table is None:
        return None
    own, above = share_through(table, "necessity")
    asked = table[(table.measure == "necessity") & (table.arm == "chosen")]
    if own.empty:
        silent = "This speaks of the readout or of too few texts, not of the features."
        return Finding(
            "none",
            "No share of an emotion’s difference could be measured.",
            "For no emotion is the readout’s difference between emotional and neutral texts away "
            f"from 0. {silent}",
            "–",
            f"of {plural(len(asked), 'emotion')} with a measurable difference",
            sure=silent,
        )
    left = table[(table.measure == "error_share") & table.value.notna()]
    error = (
        f" {number(float(left.value.median()))} of it is there where only the SAE’s error is left."
        if len(left)
        else ""
    )
    detail = (
        f"Median share over {plural(len(own), 'emotion')}: {number(float(own.value.median()))} "
        f"({number(own.value.min())} to {number(own.value.max())})"
        + f"; {plural(len(asked) - len(own), 'emotion')} without a measurable difference"
        * (len(asked) > len(own))
        + f".{error} Intervals are not corrected for the number of emotions."
    )
    tone: Tone = "none" if above.empty else "found" if len(above) == len(asked) else "mixed"
    if above.empty:
        headline = (
            "It is not shown that any of an emotion’s difference runs through the chosen features "
            "rather than through random ones."
        )
    else:
        whom = ["emotion in general" if e == ALL else str(e) for e in above.emotion]
        headline = (
            f"For {listing(whom)} part of the "
            f"difference between emotional and neutral texts runs through the chosen features"
            f"{_beyond(table)}."
        )
    unit = f"of {plural(len(asked), 'emotion')} whose features carry a share"
    sure = "Intervals are not corrected for the number of emotions."
    return Finding(tone, headline, detail, str(len(above)), unit, sure=sure)


def _beyond(table: pd.DataFrame) -> str:
    """Against how many random sets, and how often a random set would be above them."""
    own = table[(table.measure == "necessity") & (table.arm == "random")]
    n = len(own[["set_index"]].drop_duplicates())
    if not n:
        return ""
    than = "the one random set" if n == 1 else f"any of {n} random sets"
    return f", more than through {than} (by chance in one of {n + 1})"


def steered(data: RunData) -> Finding | None:
    """Which way of steering works; None without a study."""
    ranking = data.rows(RANKING)
    if ranking is None:
        return None
    first = ranking.sort_values("rank").iloc[0]
    best, prompt = best_sae(ranking), row_of(ranking, "prompt")
    shown = [r for r in (best, prompt, row_of(ranking, "random")) if r is not None]
    scores = listing([f"{study_arm(str(r.arm)).label} {overall(r)}" for r in shown])
    detail = f"Overall score, 0 to 1: {scores}." if scores else ""
    wins = data.rows(WINS)
    top = study_arm(str(first.arm)).label
    if wins is None:
        untested = "No way was tested against another."
        return Finding(
            "mixed",
            f"Of {plural(len(ranking), 'way')} of steering, {top} scored highest.",
            f"{detail} {untested}".strip(),
            number(float(first.overall)),
            "highest overall score",
            sure=untested,
        )
    wins = wins[wins.score == OVERALL]
    row = wins.iloc[0]
    n, bar = int(row.n_emotions), int(row.bar)
    headline = (
        f"{study_arm(str(row.arm)).label} beats both choosing by input and every random set in "
        f"{int(row.wins)} of {plural(n, 'emotion')}; the bar of {bar} set beforehand is "
        f"{'reached' if row.reached else 'not reached'}."
    )
    tone: Tone = "found" if wins.reached.all() else "mixed" if (wins.wins > 0).any() else "none"
    lead = "" if str(first.arm).startswith("sae_") else f"Highest of all scored {top}. "
    lines = " ".join(wins_lines(data))
    unit = f"of {n} emotions won (bar {bar})"
    return Finding(tone, headline, f"{lines} {lead}{detail}", str(int(row.wins)), unit, sure=lines)
