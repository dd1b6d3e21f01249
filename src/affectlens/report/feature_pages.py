"""One page a retained feature: what it fires on, answers to, writes and does, with code to use it.

`feature_pages` gathers; `templates/features.html.j2` shows it as the context variable
`features_view`, with `feature_pages.css` and `feature_pages.js`. All text is foreign until the
template escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from affectlens.display.words import contrast_label, listing, number, plural, share
from affectlens.features.results import Context

from .classes import feature_classes
from .feature_code import Setup, clamp_code, setup, steer_code
from .feature_contexts import PlaceGroup, ranged, strongest
from .feature_drawings import Histogram, RateStrip, histogram, rate_strip
from .feature_effects import EffectSources, FeatureEffects, effect_sources, feature_effects
from .feature_names import NAMES_FILE, AboutNames, FeatureName, read_feature_names
from .feature_scores import ContrastScores, ScoreSources, contrast_scores, gist
from .feature_slopes import Pairs, SlopePlot, pairs_by_feature, slope_plot
from .feature_words import (
    Chip,
    Near,
    fired_tokens,
    lens_tokens,
    near,
    on_emotion_words,
    seen,
    spread,
)
from .loading import RunData, best_first
from .passport import PAGES_SHOWN, passport


@dataclass(frozen=True)
class FeatureWords:
    """What the naming stage found; None of it without that stage."""

    spread: str
    on_words: tuple[str, ...]
    kinds: tuple[str, ...]
    fired: tuple[Chip, ...]
    promoted: tuple[Chip, ...]
    suppressed: tuple[Chip, ...]
    writes_alike: tuple[Near, ...]
    fires_alike: tuple[Near, ...]


@dataclass(frozen=True)
class FeaturePage:
    """One feature; `previous` and `next` are the numbers of the pages beside it."""

    feature: int
    found_for: str
    confirmed: bool
    classes: tuple[str, ...]
    gist: str
    seen: str
    rate_at: int | None
    histogram: Histogram | None
    words: FeatureWords | None
    places: tuple[PlaceGroup, ...]
    scores: tuple[ContrastScores, ...]
    slopes: SlopePlot | None
    effects: FeatureEffects
    clamp: str
    steer: str
    previous: int | None
    next: int | None


@dataclass(frozen=True)
class FeaturePages:
    """All pages, confirmed features first."""

    pages: tuple[FeaturePage, ...]
    n_hidden: int
    counts: str
    rates: RateStrip | None
    rates_note: str
    places_note: str
    lens_note: str
    named: bool
    effects_made: bool


@dataclass(frozen=True, eq=False)
class _Sources:
    """Everything the pages are made from, read once."""

    data: RunData
    rows: Mapping[int, tuple[Any, ...]]
    about: AboutNames | None
    names: Mapping[int, FeatureName]
    contexts: Mapping[int, list[Context]]
    stats: Mapping[int, Any]
    pairs: Mapping[int, Pairs]
    rates: RateStrip | None
    scores: ScoreSources
    effects: EffectSources
    start: Setup
    linked: frozenset[int]


def feature_pages(data: RunData) -> FeaturePages | None:
    """Gather the pages; None without a search or where it retained nothing.

    Raises:
        ArtifactError: the file of names is broken or of another version.
    """
    rows = _retained(data)
    if not rows:
        return None
    shown = dict(list(rows.items())[:PAGES_SHOWN])
    sources = _sources(data, shown)
    order = list(shown)
    pages = tuple(
        _page(
            feature,
            sources,
            order[i - 1] if i else None,
            order[i + 1] if i + 1 < len(order) else None,
        )
        for i, feature in enumerate(order)
    )
    sure = sum(page.confirmed for page in pages)
    return FeaturePages(
        pages,
        len(rows) - len(shown),
        f"{sure} confirmed, {plural(len(pages) - sure, 'candidate')} that "
        f"{'was' if len(pages) - sure == 1 else 'were'} not",
        sources.rates,
        _rates_note(data),
        _places_note(sources.about),
        _lens_note(sources.about),
        sources.about is not None,
        data.rows("search/screen") is not None or bool(sources.effects.verdicts),
    )


def _retained(data: RunData) -> dict[int, tuple[Any, ...]]:
    """Rows of `search/features` of each retained feature; those confirmed anywhere first."""
    if data.features is None:
        return {}
    table = best_first(data.features[data.features.retained])
    place = {contrast: i for i, contrast in enumerate(dict.fromkeys(data.features.contrast))}
    rows: dict[int, list[Any]] = {}
    for row in sorted(table.itertuples(), key=lambda r: place[r.contrast]):
        rows.setdefault(int(row.feature), []).append(row)
    # The contrast that confirmed a feature comes first on its page, else the search's own order.
    ordered = {f: tuple(sorted(own, key=lambda r: not r.confirmed)) for f, own in rows.items()}
    return dict(sorted(ordered.items(), key=lambda item: not item[1][0].confirmed))


def _sources(data: RunData, rows: Mapping[int, tuple[Any, ...]]) -> _Sources:
    path = data.path / NAMES_FILE
    about, names = read_feature_names(path) if path.exists() else (None, ())
    contexts: dict[int, list[Context]] = {}
    for context in data.contexts:
        contexts.setdefault(context.feature, []).append(context)
    stats = data.stats
    found = passport(data)
    features = list(rows)
    return _Sources(
        data=data,
        rows=rows,
        about=about,
        names={name.feature: name for name in names},
        contexts=contexts,
        stats={} if stats is None else {
            int(r.feature): r for r in stats[stats.feature.isin(features)].itertuples()
        },
        pairs=pairs_by_feature(data.pooled, features),
        rates=None if stats is None else rate_strip(stats.firing_rate),
        scores=ScoreSources(feature_classes(data), () if found is None else found.checks),
        effects=effect_sources(data, features),
        start=setup(data),
        linked=frozenset(features),
    )  # fmt: skip


def _page(
    feature: int, sources: _Sources, previous: int | None, following: int | None
) -> FeaturePage:
    rows = sources.rows[feature]
    name, stats = sources.names.get(feature), sources.stats.get(feature)
    scores = tuple(contrast_scores(row, sources.scores) for row in rows)
    contrasts = [score.contrast for score in scores]
    largest = name.max_active if name else None if stats is None else float(stats.max_active)
    words = None if name is None else _words(name, sources)
    rate = name.firing_rate if name else 0.0 if stats is None else float(stats.firing_rate)
    return FeaturePage(
        feature=feature,
        found_for=listing([contrast_label(c) for c in contrasts]),
        confirmed=bool(rows[0].confirmed),
        classes=tuple(dict.fromkeys(s.kind for s in scores if s.kind)),
        gist=gist(scores[0]),
        seen=_seen(name, stats, sources),
        rate_at=sources.rates.place(rate) if sources.rates else None,
        histogram=None if name is None else histogram(name.density),
        words=words,
        places=ranged(name.groups) if name else strongest(sources.contexts.get(feature, [])),
        scores=scores,
        slopes=_slopes(feature, scores, sources),
        effects=feature_effects(feature, contrasts, sources.effects),
        clamp=clamp_code(sources.start, feature, largest),
        steer=steer_code(sources.start, feature),
        previous=previous,
        next=following,
    )


def _words(name: FeatureName, sources: _Sources) -> FeatureWords:
    assert sources.about is not None  # names are only read together with it
    about = sources.about
    return FeatureWords(
        spread=spread(name.tokens),
        on_words=tuple(on_emotion_words(words, about) for words in name.emotions),
        kinds=tuple(dict.fromkeys(words.kind for words in name.emotions)),
        fired=fired_tokens(name.tokens.top),
        promoted=lens_tokens(name.lens.promoted),
        suppressed=lens_tokens(name.lens.suppressed),
        writes_alike=near(name.nearest_decoder, sources.linked),
        fires_alike=near(name.nearest_cofiring, sources.linked),
    )


def _seen(name: FeatureName | None, stats: Any, sources: _Sources) -> str:
    if name is not None and sources.about is not None:
        return seen(name, sources.about)
    if stats is None:
        return "Its firing on ordinary text was not measured."
    return (
        f"Fires on {share(stats.firing_rate)} of held-out tokens, at most "
        f"{number(stats.max_active, 1)}."
    )


def _slopes(
    feature: int, scores: tuple[ContrastScores, ...], sources: _Sources
) -> SlopePlot | None:
    pairs, summary = sources.pairs.get(feature), sources.data.summary
    if pairs is None or summary is None:
        return None
    return slope_plot(pairs, summary.emotions, [s.interval for s in scores], summary.pooling)


def _rates_note(data: RunData) -> str:
    if data.stats is None:
        return ""
    dead = int((data.stats.firing_rate == 0).sum())
    return f"{plural(len(data.stats), 'feature')} of the SAE" + (
        f", {dead:,} never fire" if dead else ""
    )


def _places_note(about: AboutNames | None) -> str:
    if about is None:
        return "The strongest only."
    return "Groups of equal range of its activation; more in naming/names.jsonl."


def _lens_note(about: AboutNames | None) -> str:
    return "" if about is None else f"Emotion words: {about.lexicon}."
