"""The steering study in sentences and tables: ranking, doses, comparisons, wins, the scorer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import pandas as pd

from affectlens.display.arms import STUDY_ARMS, in_order, study_arm
from affectlens.display.words import (
    ALL,
    bounds,
    capital,
    contrast_label,
    listing,
    number,
    plural,
    probability,
    sentence,
    share,
)

from .figures_study import CHOSEN, RANKING, dose_unit
from .loading import ALPHA, RunData
from .study_texts import StudyTexts, study_texts
from .tables import Block, Cell, Head, Row, Table, estimate

COMPARISONS, WINS = "steering/comparisons", "steering/wins"
OVERALL = "overall"
"""The score that comparisons are shown by."""

_PARTS = {
    "whole": "On whole sound texts",
    "passages": "On passages",
    "passages that name the emotion": "On passages that name it",
    "passages that do not": "On passages that do not",
}
"""Parts of the held-out texts that a scorer's card knows, in words."""


@dataclass(frozen=True)
class StudyView:
    """What the section shows.

    Attributes:
        leads: what came out, a (title, sentences) each.
        ranking: every arm.
        doses: dose and score of every arm and emotion; None where no arm has a dose.
        comparisons: every arm against its rivals, over all emotions.
        blocks: the same for each emotion, an arm each.
        method: how scores are made, (name, text).
        scorer: the card of the reader of emotions, (name, text).
        texts: a few texts side by side.
    """

    leads: tuple[tuple[str, str], ...]
    ranking: Table
    doses: Table | None
    comparisons: Table | None
    blocks: tuple[Block, ...]
    method: tuple[tuple[str, str], ...]
    scorer: tuple[tuple[str, str], ...]
    texts: StudyTexts


def study_view(data: RunData) -> StudyView | None:
    """The section; None where no study was made."""
    table = data.rows(RANKING)
    if table is None:
        return None
    leads = (
        _best(table),
        ("Choosing by output", " ".join(wins_lines(data))) if wins_lines(data) else None,
        _beside_prompt(data, table),
        _naming(table),
        _cost(data, table),
    )
    summary = data.study_summary
    return StudyView(
        leads=tuple(lead for lead in leads if lead is not None),
        ranking=_ranking(table),
        doses=_doses(data),
        comparisons=_comparisons(data),
        blocks=tuple(_blocks(data)),
        method=tuple((k, sentence(v)) for k, v in summary.method.items()) if summary else (),
        scorer=tuple(scorer_card(summary.scorer)) if summary else (),
        texts=study_texts(data),
    )


def best_sae(table: pd.DataFrame) -> Any:
    """The row of the arm of latents alone that was best on the other half; None without one.

    The half that is reported must not choose what it is then said to show.
    """
    own = table[table.arm.str.startswith("sae_")].sort_values("select_overall", ascending=False)
    return next(own.itertuples(), None)


def row_of(table: pd.DataFrame, arm: str) -> Any:
    """The row of an arm in the ranking; None if it was not run."""
    return next(table[table.arm == arm].itertuples(), None)


def wins_lines(data: RunData) -> list[str]:
    """For each judged arm: in how many emotions it beats input and chance, and the bar."""
    table = data.rows(WINS)
    if table is None:
        return []
    masked = table[table.score != OVERALL].set_index("arm").wins
    return [
        _wins(r, None if r.arm not in masked else int(masked[r.arm]))
        for r in table[table.score == OVERALL].itertuples()
    ]


def _wins(r: Any, masked: int | None) -> str:
    name = study_arm(str(r.arm)).label
    won = [contrast_label(e) for e in str(r.emotions).split(",") if e]
    said = (
        f"{name} beats {study_arm('sae_input').label} in {int(r.beats_input)} and every random set "
        f"in {int(r.beats_random)} of {plural(int(r.n_emotions), 'emotion')}, both in "
        f"{int(r.wins)}{f' ({listing(won)})' if won else ''}. The bar set before the study was "
        f"{int(r.bar)}: {'reached' if r.reached else 'not reached'}."
    )
    if masked is not None:
        said += f" By scores without emotion words it wins {masked}."
    if r.min_p_holm > ALPHA:
        said += (
            f" With this many scenarios the smallest corrected p is {probability(r.min_p_holm)}, "
            "so nothing could have been found."
        )
    elif not r.reached:
        said += " What is not shown to win is not shown to lose."
    return said


def _best(table: pd.DataFrame) -> tuple[str, str]:
    order = table[table.arm != "random_best"].sort_values("rank")
    named = [f"{study_arm(str(r.arm)).label} {overall(r)}" for r in order.head(3).itertuples()]
    said = f"Highest overall score: {listing(named)}."
    best, place = best_sae(order), list(order.arm)
    if best is not None:
        rank = place.index(best.arm) + 1
        said += (
            f" The arm of latents alone that was best on the scenarios that chose the doses is "
            f"{study_arm(str(best.arm)).label}: place {rank} of {len(order)} at {overall(best)}"
        )
        rivals = [row_of(order, a) for a in ("random", "unedited")]
        others = [f"{study_arm(str(r.arm)).label} {number(r.overall)}" for r in rivals if r]
        said += f"; {listing(others)}." if others else "."
    return "Which works best?", said


def overall(r: Any) -> str:
    """The overall score of a row of the ranking, with its interval."""
    return number(r.overall) + bounds(r.overall_low, r.overall_high)


def _beside_prompt(data: RunData, ranking: pd.DataFrame) -> tuple[str, str] | None:
    table, best = _compared(data), best_sae(ranking)
    if table is None or best is None:
        return None
    own = table[(table.arm == best.arm) & (table.against == "prompt")]
    whole: Any = next(own[own.emotion == ALL].itertuples(), None)
    if whole is None:
        return None
    single = own[own.emotion != ALL]
    won = int(single.beats.sum())
    shown = "is shown to beat" if whole.beats else "is not shown to beat"
    below = "; the whole interval lies below 0, so the prompt does better" if whole.high < 0 else ""
    return (
        "Against simply asking",
        f"{study_arm(str(best.arm)).label} minus a prompt that names the emotion: "
        f"{number(whole.difference, sign=True)}{bounds(whole.low, whole.high)} overall score"
        f"{below}. It {shown} the prompt over all emotions (p, adjusted "
        f"{probability(whole.p_holm)}), and does so in {won} of "
        f"{plural(len(single), 'single emotion')}.",
    )


def _naming(table: pd.DataFrame) -> tuple[str, str]:
    rows = [r for r in (best_sae(table), row_of(table, "prompt"), row_of(table, "unedited")) if r]
    parts = [
        f"{study_arm(str(r.arm)).label}: {number(r.concept)} as written, "
        f"{number(r.concept_masked)} with emotion words taken out, {share(r.naming)} of texts "
        "name it"
        for r in rows
    ]
    return (
        "Evoked or merely named?",
        f"Probability of the emotion. {sentence('; '.join(parts))} What is left when the words are "
        "taken out is not carried by naming.",
    )


def _cost(data: RunData, table: pd.DataFrame) -> tuple[str, str]:
    steered = table[(table.delta_norm > 0) & (table.arm != "random_best")]
    kept = [study_arm(str(a)).label for a in steered.loc[steered.coherence_equivalent, "arm"]]
    margin = f"±{data.study_summary.margin:g}" if data.study_summary else "the margin"
    named = f": {listing(kept)}" if kept else ""
    said = (
        f"{len(kept) or 'None'} of {plural(len(steered), 'steered arm')} "
        f"{'is' if len(kept) < 2 else 'are'} shown to keep the unedited model’s coherence within "
        f"{margin} at the chosen dose{named}." + " For the others it is not shown." * bool(kept)
    )
    if data.study_summary is not None and not data.study_summary.on_topic_measured:
        said += (
            " Unedited texts do not depend on their prompts, so staying on topic could not be "
            "measured."
        )
    return "What it costs", said


def _ranking(table: pd.DataFrame) -> Table:
    rows = tuple(_ranked(r) for r in table.sort_values("rank").itertuples())
    heads = (
        Head("Arm", num=False),
        Head("Overall", "95% interval"),
        Head("Emotion", "probability; emotion words taken out"),
        Head("Likeliest", "share"),
        Head("Names it", "share"),
        Head("On topic", "0 to 1"),
        Head("Coherence change", "90% interval; within the margin?"),
        Head("Slope", "probability a unit"),
        Head("Norm", "a token"),
    )
    n, k = int(table.n_scenarios.max()), int(table.n_emotions.max())
    caption = f"Every arm: mean over {plural(k, 'emotion')}, {plural(n, 'scenario')}"
    return Table(caption, heads, rows)


def _ranked(r: Any) -> Row:
    cells = (
        estimate(number(r.overall), r.overall_low, r.overall_high),
        Cell(number(r.concept), below=f"{number(r.concept_masked)} without them"),
        Cell(share(r.hit)),
        Cell(share(r.naming)),
        Cell(number(r.on_topic)),
        Cell("–") if r.arm == "unedited" else _change(r),
        Cell(number(r.concept_slope, sign=True)),
        Cell(number(r.delta_norm, 1)),
    )
    return Row(f"{int(r.rank)}. {study_arm(str(r.arm)).label}", cells)


def _change(r: Any) -> Cell:
    within = "shown" if r.coherence_equivalent else "not shown"
    low, high = r.coherence_change_low, r.coherence_change_high
    return estimate(number(r.coherence_change, sign=True), low, high, note=within)


def _doses(data: RunData) -> Table | None:
    table = data.rows(CHOSEN)
    if table is None or not (table.dose > 0).any():
        return None
    table = table[table.dose > 0]
    emotions = list(dict.fromkeys(table.emotion.astype(str)))
    rows = []
    for arm in in_order(table.arm, STUDY_ARMS):
        own = table[table.arm == arm]
        cells = tuple(_dose_cell(own[own.emotion == e]) for e in emotions)
        rows.append(Row(study_arm(arm).label, cells))
    heads = (Head("Arm", num=False), *(Head(capital(contrast_label(e))) for e in emotions))
    unit = dose_unit(data)
    caption = (
        f"Dose chosen on the other half{f' ({unit})' * bool(unit)}, and the overall score on the "
        "half that is reported"
    )
    return Table(caption, heads, tuple(rows))


def _dose_cell(own: pd.DataFrame) -> Cell:
    if own.empty:
        return Cell("–")
    doses = sorted({float(d) for d in own.dose})
    shown = f"{doses[0]:g}" if len(doses) == 1 else f"{doses[0]:g} to {doses[-1]:g}"
    latents = [f for f in dict.fromkeys(own.features.astype(str)) if f]
    title = f"latents {'; '.join(latents)}" if latents else ""
    return Cell(shown, title, below=f"score {number(float(own.overall.mean()))}")


def _compared(data: RunData) -> pd.DataFrame | None:
    """Comparisons by the overall score."""
    table = data.rows(COMPARISONS)
    return None if table is None else table[table.score == OVERALL]


def _comparisons(data: RunData) -> Table | None:
    table = _compared(data)
    if table is None:
        return None
    rivals = in_order(table.against, STUDY_ARMS)
    rows = []
    for arm in in_order(table.arm, STUDY_ARMS):
        own = table[table.arm == arm]
        cells = tuple(_against(own[own.against == rival]) for rival in rivals)
        rows.append(Row(study_arm(arm).label, cells))
    heads = (Head("Arm", num=False), *(Head(f"minus {_rival(r)}", "all emotions") for r in rivals))
    caption = (
        "Difference of the overall score with its 95% interval, p adjusted (Holm); in how many "
        "emotions it is shown to beat the rival. Over all emotions a random set is put together "
        "of one an emotion, and the hardest of these is shown"
    )
    return Table(caption, heads, tuple(rows))


def _rival(name: str) -> str:
    return "the hardest random set" if name == "random" else study_arm(name).label


def _against(own: pd.DataFrame) -> Cell:
    whole: Any = next(own[own.emotion == ALL].itertuples(), None)
    if whole is None:
        return Cell("–")
    single = own[own.emotion != ALL]
    shown = f"{number(whole.difference, sign=True)}, p {probability(whole.p_holm)}"
    note = f"in {int(single.beats.sum())} of {len(single)}"
    return estimate(shown, whole.low, whole.high, note=note)


def _blocks(data: RunData) -> list[Block]:
    table = _compared(data)
    if table is None:
        return []
    single = table[table.emotion != ALL]
    blocks = []
    for arm in in_order(single.arm, STUDY_ARMS):
        if study_arm(arm).family != "SAE":
            continue
        own = single[single.arm == arm]
        rivals = in_order(own.against, STUDY_ARMS)
        rows = tuple(
            Row(
                contrast_label(str(e)),
                tuple(_difference(part[part.against == rival]) for rival in rivals),
            )
            for e, part in own.groupby("emotion", sort=False)
        )
        heads = (Head("Emotion", num=False), *(Head(f"minus {_rival(r)}") for r in rivals))
        n = f"{int(own.beats.sum())} of {len(own)} comparisons shown to be won"
        blocks.append(Block(study_arm(arm).label, n, Table("", heads, rows)))
    return blocks


def _difference(own: pd.DataFrame) -> Cell:
    r: Any = next(own.itertuples(), None)
    if r is None:
        return Cell("–")
    shown = f"{number(r.difference, sign=True)}, p {probability(r.p_holm)}"
    return estimate(shown, r.low, r.high, note="shown to win" if r.beats else "")


def scorer_card(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What read the emotions, and how well it does on text it was not fitted to."""
    rows = [("Scorer", f"{card.get('name', 'not named')}: {card.get('kind', 'kind not recorded')}")]
    held_out = card.get("held_out")
    if not isinstance(held_out, Mapping):
        why = "it was fitted to nothing" if card.get("fitted") is False else "none was measured"
        return [
            *rows,
            ("Held-out accuracy", f"{why}; its scores have no accuracy of their own here"),
        ]
    accuracy = _accuracy(held_out.get("accuracy"))
    chance = held_out.get("chance")
    if accuracy:
        by_chance = f"; guessing gives {share(float(chance))}" if _is_number(chance) else ""
        rows.append(("Held-out accuracy", f"{accuracy}{by_chance}"))
    parts = held_out.get("sound_texts")
    if isinstance(parts, Mapping):
        rows += [(_PARTS.get(k, f"On: {k}"), a) for k, v in parts.items() if (a := _accuracy(v))]
    recall = held_out.get("recall")
    if isinstance(recall, Mapping):
        known = [f"{k} {share(float(v))}" for k, v in recall.items() if _is_number(v)]
        rows.append(("Found of each label", ", ".join(known)))
    return rows


def _accuracy(value: object) -> str:
    """'62% right (58% to 66%), 900 texts'; '' where it was not measured."""
    if not isinstance(value, Mapping) or not _is_number(value.get("share")):
        return ""
    low, high = value.get("low"), value.get("high")
    interval = ""
    if _is_number(low) and _is_number(high):
        interval = f" ({share(low)} to {share(high)})"
    return f"{share(float(value['share']))} right{interval}, {plural(int(value['n']), 'text')}"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
