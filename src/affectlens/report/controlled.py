"""What a run controls for, and what it does not: only what its files show."""

from __future__ import annotations

from affectlens.display.words import count, listing, plural

from .loading import RunData


def controls(data: RunData) -> list[tuple[str, str]]:
    """What was controlled for in this run, as (what, how); only what the files show."""
    rows: list[tuple[str, str]] = []
    if (s := data.summary) is not None:
        rows += [
            (
                "Topic and scene",
                "every emotional text is compared only with its own neutral twin",
            ),
            (
                "Luck over thousands of features",
                f"permutation tests with {count(s.n_permutations)} permutations; family-wise p "
                f"(max-T) within each of the {plural(len(s.min_p), 'search', 'searches')}; q over "
                f"all {count(s.n_tests_family)} tests; each search has a level of its own",
            ),
            (
                "Choosing and judging on the same texts",
                "features are chosen on one part of the scenes and judged on another",
            ),
        ]
        if s.suffix:
            rows.append(
                (
                    "The last word read",
                    f"all texts end with the same words (“{s.suffix.strip()}”); only "
                    "their tokens are read",
                )
            )
    rows += _validated(data)
    if (m := data.metrics) is not None:
        rows.append(
            (
                "Outlier tokens",
                f"{plural(m.n_masked_tokens, 'token')} (first position, extreme norm) masked "
                f"beside {count(m.n_heldout_tokens)} kept in the SAE check",
            )
        )
    if data.effects is not None:
        rows += _arms(set(data.effects.arm), data)
    return rows + _study(data)


def _validated(data: RunData) -> list[tuple[str, str]]:
    """The controls of the stages that follow the search."""
    rows = []
    if (c := data.controls_summary) is not None:
        strict = f", pairs of equal words ({listing(c.strict)})" if c.strict else ""
        rows.append(
            (
                "Wording",
                f"shuffled texts, a regression on {count(c.n_words)} words, shared words{strict}: "
                "each candidate ends in a class",
            )
        )
    if (b := data.baselines_summary) is not None:
        rows.append(
            (
                "Simpler methods",
                f"dense probes, differences of means, single neurons and TF-IDF on the same texts, "
                f"at {plural(len(b.hooks), 'place')}",
            )
        )
    return rows


def _arms(arms: set[str], data: RunData) -> list[tuple[str, str]]:
    n = int(data.verdicts.n_random.max()) if data.verdicts is not None and len(data.verdicts) else 0
    known = {
        "random": (
            "Any edit of this size",
            f"{n} random sets of features, matched in how often they fire and in "
            "the size of the change",
        ),
        "random_direction": ("Any push of this size", "random directions of the same size"),
        "diff_of_means": (
            "A simpler method",
            "the plain difference between emotional and neutral activations",
        ),
        "dense_probe": ("A probe", "the direction of a logistic probe, at the same total norm"),
        "neurons": ("Neurons", "the best single neurons, at the same total norm"),
        "shuffled_labels": (
            "Choosing features at all",
            "the same selection on pairs whose labels were shuffled by scene group",
        ),
        "prompt": ("Simply saying it", "a sentence that names the emotion, and its neutral twin"),
        "splice": (
            "The SAE’s error",
            "its reconstruction in place of the stream, with and without edit",
        ),
        "no_edit": ("The machinery itself", "the same run with no edit"),
    }
    return [row for arm, row in known.items() if arm in arms]


def _study(data: RunData) -> list[tuple[str, str]]:
    """The controls of the steering study."""
    s = data.study_summary
    if s is None:
        return []
    rows = [
        (
            "Choosing a dose and judging it",
            f"doses are chosen on {plural(s.n_select, 'scenario')} and judged on {s.n_report} "
            "others",
        ),
        (
            "Luck of sampling",
            "every arm writes to the same scenarios with the same random numbers",
        ),
    ]
    arms = s.settings.get("arms")
    if isinstance(arms, list | tuple) and "prompt_plain" in arms:
        rows.append(("Being asked for anything", f"a neutral instruction: “{s.ask_plain}”"))
    return rows


def not_controlled(data: RunData) -> list[str]:
    """What no part of this run controls for."""
    lines = [
        "One model, one layer and one trained SAE: another layer or seed may give other features."
    ]
    if data.summary is not None and data.summary.lexical_warning:
        lines.insert(
            0,
            "Wording: the words of the two members of a pair differ, and words alone tell them "
            "apart."
            + (
                " Only features called contextual pass every test that takes the words away."
                if data.controls_summary is not None
                else ""
            ),
        )
    summaries = [s for s in (data.summary, data.effects_summary) if s is not None]
    for misfit in dict.fromkeys(name for s in summaries for name in s.misfits):
        lines.insert(0, f"A misfit of SAE and model was overridden by name: {misfit}.")
    if data.effects_summary is not None:
        lines.append(
            "Output is measured by the probability of fixed emotion words after a fixed suffix, "
            "not by readers."
        )
    if data.study_summary is not None:
        lines.append(
            "Steered texts are scored by a classifier and by measures of form, not by readers; its "
            "held-out accuracy stands beside the scores."
        )
    lines.append(
        "‘Emotion’ here means the emotion a text depicts, as its author labelled it; nothing is "
        "claimed "
        "about feelings of the model."
    )
    return lines
