"""What the tests of a contrast could have found: smallest attainable p and smallest effect seen."""

from __future__ import annotations

from affectlens.display.words import ALL, number, plural, probability
from affectlens.features.results import SearchSummary

from .findings import NOT_DETECTABLE
from .loading import RunData


def limits(data: RunData, contrast: str) -> list[str]:
    """What discovery and confirmation of a contrast could have shown; none without a search."""
    if data.summary is None:
        return []
    lines = [_discovery(data.summary, contrast), _confirmation(data.summary, contrast)]
    return [line for line in lines if line]


def detectable(s: SearchSummary, contrast: str) -> float | None:
    """Smallest effect found with power .8 in discovery; None where it was not recorded."""
    found = s.min_detectable.get(contrast)
    return s.min_detectable_d_z if found is None and contrast == ALL else found


def _discovery(s: SearchSummary, contrast: str) -> str:
    smallest, seen = s.min_p.get(contrast), detectable(s, contrast)
    if smallest is None:
        return ""
    if smallest > s.alpha:
        return (
            f"Smallest attainable p in discovery {probability(smallest)}, above {s.alpha:g}: "
            "nothing could be found here, whatever the effect."
        )
    if seen is None:
        return ""
    if seen >= NOT_DETECTABLE:
        return "No effect of any size is seen with power .8 in discovery by one feature alone."
    return (
        f"Smallest effect that discovery sees with power .8, corrected for all tests: d = "
        f"{number(seen)}."
    )


def _confirmation(s: SearchSummary, contrast: str) -> str:
    """Only where no candidate could be confirmed by itself."""
    n, smallest = s.n_retained.get(contrast, 0), s.confirm_min_p.get(contrast)
    if not n or smallest is None or smallest * n <= s.alpha:
        return ""
    return (
        f"Smallest attainable p in confirmation {probability(smallest)}, times "
        f"{plural(n, 'candidate')} above {s.alpha:g}: none could be confirmed by itself."
    )
