from dataclasses import replace

import pytest

from affectlens.report.limits import limits
from affectlens.report.loading import NAMED, RunData
from affectlens.report.reads import RULES, reads_view


def test_the_tokens_read_last_are_counted_most_frequent_first(validated: RunData) -> None:
    view = reads_view(validated)
    assert view is not None
    assert [(r.token, r.n, r.share) for r in view.rows] == [
        (".", "3", "60%"),
        ("␣day↵", "1", "20%"),
        ('."', "1", "20%"),
    ]
    assert "5 texts, 10 tokens on average (8 to 12) read in each; 3 different last ones" in (
        view.sentence
    )
    assert "a sentence that ends every text alike (“That was the end of the day.”)" in view.rule


def test_more_tokens_than_are_shown_are_counted(validated: RunData) -> None:
    table = validated.tables["search/reads"].iloc[[0] * 9].assign(token=list("abcdefghi"))
    data = replace(validated, tables={"search/reads": table})
    view = reads_view(data)
    assert view is not None
    assert [r.token for r in view.rows] == list("abcdef")
    assert view.note == "3 more tokens in search/reads.csv."


def test_an_older_run_says_that_the_tokens_were_not_recorded(positive: RunData) -> None:
    view = reads_view(positive)
    assert view is not None and view.rows == () and "not recorded" in view.sentence
    assert reads_view(RunData(positive.path)) is None


@pytest.mark.parametrize("pooling", [*RULES, "something new"])
def test_every_pooling_has_its_rule(positive: RunData, pooling: str) -> None:
    summary = replace(positive.summary, pooling=pooling, suffix="")  # type: ignore[type-var]
    view = reads_view(replace(positive, summary=summary))
    assert view is not None and RULES.get(pooling, "something new") in view.rule
    assert "same in both twins" not in view.rule


def test_the_smallest_effect_seen_stands_beside_every_contrast(positive: RunData) -> None:
    assert limits(positive, "all") == [
        "Smallest effect that discovery sees with power .8, corrected for all tests: d = 1.34."
    ]
    assert "d = 2.60" in limits(positive, "grief")[0]
    assert limits(RunData(positive.path), "all") == []


def test_a_p_that_no_data_could_reach_is_named(positive: RunData) -> None:
    s = positive.summary
    assert s is not None
    few = replace(
        s, min_p={**s.min_p, "grief": 0.25}, confirm_min_p={**s.confirm_min_p, "grief": 0.01}
    )
    first, second = limits(replace(positive, summary=few), "grief")
    assert "Smallest attainable p in discovery 0.25, above 0.05" in first
    assert "0.010, times 20 candidates above 0.05: none could be confirmed by itself" in second


def test_an_effect_that_is_never_seen_has_no_size(positive: RunData) -> None:
    s = positive.summary
    assert s is not None
    data = replace(positive, summary=replace(s, min_detectable={"grief": 1000.0}))
    assert limits(data, "grief") == [
        "No effect of any size is seen with power .8 in discovery by one feature alone."
    ]
    assert limits(data, "rage") == []
    assert "d = 1.34" in limits(data, "all")[0]


def test_tables_are_found_by_name(validated: RunData) -> None:
    assert validated.table("search/features") is validated.features
    assert validated.table("search/reads") is validated.tables["search/reads"]
    assert validated.table("validity/tests") is None
    assert not set(validated.tables) & set(NAMED.values())
