"""The small print that decides what a result means: family, power, controls, provenance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from affectlens.display.arms import INTERVENTION_WORDS
from affectlens.display.words import (
    ALL,
    contrast_label,
    count,
    listing,
    number,
    plural,
    probability,
    share,
)
from affectlens.features.chance import attainable
from affectlens.features.results import SearchSummary

from .findings import NOT_DETECTABLE
from .loading import ALPHA, RunData


def power(data: RunData) -> list[str]:
    """The family of tests, the smallest p the data allow, and what could not have passed."""
    lines = []
    if data.summary is not None:
        lines += _search_power(data.summary)
    if data.verdicts is not None and not data.verdicts.empty:
        lines += _verdict_power(data)
    return lines


def _search_power(s: SearchSummary) -> list[str]:
    lines = [
        f"Family: {count(s.n_tests_family)} tests ({plural(s.n_tested, 'feature')} × "
        f"{plural(len(s.min_p), 'contrast')}). {plural(s.n_filtered, 'feature')} of "
        f"{count(s.n_features)} "
        f"{'was' if s.n_filtered == 1 else 'were'} left out beforehand because they fire on "
        f"fewer than {s.min_items} texts.",
        f"Discovery used {plural(s.n_pairs_discovery, 'pair')} in "
        f"{plural(s.n_clusters_discovery, 'scene group')}, "
        f"confirmation the other {plural(s.n_pairs_confirmation, 'pair')} in "
        f"{plural(s.n_clusters_confirmation, 'scene group')}; no scene group is in both.",
        _detectable(s),
        *_together(s),
    ]
    for contrast in [c for c in (ALL, *s.emotions) if c in s.min_p]:
        p = s.min_p[contrast]
        alone = s.alpha / max(s.n_tests_family, 1)
        needed = math.ceil(p * s.n_tests_family / s.alpha)
        if p <= alone:
            continue
        what = "emotional against neutral" if contrast == ALL else contrast
        lines.append(
            f"Smallest attainable p for {what}: {probability(p)}. A single feature would need "
            f"{probability(alone)}, "
            f"so by q features can pass in this contrast only together: at least {needed:,} would "
            "have to reach it. The family-wise p (max-T) can fall to "
            f"{probability(p)} for one feature alone."
        )
    return _merge(lines) + _unreachable(s)


def _together(s: SearchSummary) -> list[str]:
    """What stays if all searches share one level."""
    if not s.n_confirmed_family or len(s.min_p) < 2:
        return []
    found, kept = sum(s.n_confirmed.values()), sum(s.n_confirmed_family.values())
    passed = sum(s.n_significant_fwer.values())
    stay = sum(s.n_significant_family.values())
    return [
        f"Each search is tested at a level of its own ({share(s.alpha)}). With one level for all "
        f"{len(s.min_p)} (p times {len(s.min_p)}), {stay:,} of {plural(passed, 'feature')} that "
        f"passed in discovery stay, and {kept:,} of {found:,} confirmed."
    ]


def _detectable(s: SearchSummary) -> str:
    if not s.n_tested:
        return "No feature was tested."
    if not s.min_detectable_d_z < NOT_DETECTABLE:
        return (
            "No single feature could have passed the correction, whatever the size of its effect."
        )
    single = min((d for c, d in s.min_detectable.items() if c != ALL), default=NOT_DETECTABLE)
    emotions = f"; for a single emotion {number(single)}" if single < NOT_DETECTABLE else ""
    return (
        f"Smallest effect that would be seen with good power: d_z = {number(s.min_detectable_d_z)} "
        f"(mean difference in units of its own standard deviation){emotions}."
    )


def _merge(lines: list[str]) -> list[str]:
    """Keep the first contrast's sentence in full and count the others, which repeat it."""
    limits = [line for line in lines if line.startswith("Smallest attainable p for")]
    if len(limits) <= 2:
        return lines
    rest = [line for line in lines if line not in limits]
    return [*rest, *limits[:2], f"The same holds for {plural(len(limits) - 2, 'more contrast')}."]


def _unreachable(s: SearchSummary) -> list[str]:
    """Confirmations that no data could pass, within a search or over all of them."""
    if s.n_pairs_confirmation == 0:
        return ["No scenes were kept aside, so nothing could be confirmed."]
    lines = []
    none = [contrast_label(c) for c in s.min_p if not s.n_retained.get(c, 0)]
    if none:
        lines.append(f"No candidate could be carried to confirmation for {listing(none)}.")
    best = {c: min(1.0, p * s.n_retained.get(c, 0)) for c, p in s.confirm_min_p.items()}
    for factor, correction in ((1, ""), (len(s.min_p), " over all searches together")):
        short = {c: min(1.0, p * factor) for c, p in best.items() if p * factor > s.alpha}
        short = {c: p for c, p in short.items() if best[c] <= s.alpha or factor == 1}
        if short:
            lines.append(_short(short, correction))
    return lines


def _short(best: Mapping[str, float], correction: str) -> str:
    """Searches whose smallest adjusted p lies above the level."""
    names = listing([f"‘{contrast_label(c)}’" for c in best])
    seen = f"{probability(min(best.values()))}"
    return (
        f"The confirmation of {names} could not have succeeded after correction{correction}: the "
        f"smallest adjusted p is {seen}. Retain fewer features or use more scenes."
    )


def _verdict_power(data: RunData) -> list[str]:
    assert data.verdicts is not None  # the caller checked; tells the type checker
    table = data.verdicts
    alpha = data.effects_summary.alpha if data.effects_summary else ALPHA
    n_random, n_emotions = int(table.n_random.min()), int(table.emotion.nunique())
    lines = [
        f"Interventions: {plural(len(table), 'test')}, adjusted (Holm) over the "
        f"{plural(n_emotions, 'emotion')} within "
        f"each intervention; the smallest rank p against {plural(n_random, 'random set')} is "
        f"{probability(1 / (1 + n_random))}."
    ]
    if data.effects_summary is not None and data.effects_summary.n_tests:
        kept, won = int((table.p_family <= alpha).sum()), int(table.beats_random.sum())
        lines.append(
            f"Corrected over all {data.effects_summary.n_tests} tests of emotions, interventions "
            f"and doses at once, {kept} of {plural(len(table), 'verdict')} "
            f"{'keeps' if kept == 1 else 'keep'} p ≤ {alpha:g} ({won} beat random features with "
            "the correction within an intervention)."
        )
    hopeless = table[~attainable(table, alpha)]
    if len(hopeless):
        named = [
            f"{INTERVENTION_WORDS.get(str(kind), str(kind))}: "
            f"{listing([contrast_label(str(e)) for e in own.emotion])}"
            for kind, own in hopeless.groupby("intervention", sort=False)
        ]
        lines.append(
            "Too few scene groups to pass after adjustment, unless all others of the intervention "
            f"pass first ({'; '.join(named)}). A ‘no’ for these says nothing about the features."
        )
    return lines


def quality(data: RunData) -> list[tuple[str, str, str]]:
    """SAE quality as (measure, value, what it means)."""
    m = data.metrics
    if m is None:
        return []
    return [
        (
            "Unexplained variance (FVU)",
            share(m.fvu),
            "of the activations' variance is lost; 0% is perfect",
        ),
        ("Active features per token (L0)", number(m.l0, 1), f"of {count(m.d_sae)}"),
        (
            "Dead features",
            share(m.dead_share),
            f"never fire on {count(m.n_heldout_tokens)} held-out tokens",
        ),
        (
            "CE loss recovered, against mean ablation",
            share(m.ce_recovered_mean),
            f"next-token loss {number(m.ce_clean)} with the model as it is, "
            f"{number(m.ce_spliced)} with the SAE in place, "
            f"{number(m.ce_mean_ablated)} with the layer replaced by its mean (nats)",
        ),
        (
            "CE loss recovered, against zero ablation",
            share(m.ce_recovered_zero),
            f"the same against {number(m.ce_zero_ablated)} nats with the layer set to zero, an "
            f"easier baseline",
        ),
    ]


def quality_verdict(data: RunData) -> str:
    """Whether the SAE can be trusted as a lens, in a sentence; thresholds are rules of thumb."""
    m = data.metrics
    if m is None:
        return ""
    lost = f"The SAE loses {share(m.fvu)} of the variance"
    # A model may not have been at hand when the SAE was evaluated; JSON then holds null.
    recovered: float | None = m.ce_recovered_mean
    if recovered is not None:
        lost += f" and recovers {share(recovered)} of the next-token loss"
    if m.fvu <= 0.3 and (recovered is None or recovered >= 0.9) and m.dead_share <= 0.3:
        return f"{lost}: a usable lens, though what it loses cannot be searched."
    return (
        f"{lost}: a coarse lens. Features may be missing or blurred, and a negative result may be "
        "the SAE’s fault."
    )


def what_was_run(data: RunData) -> list[tuple[str, str]]:
    """The run in a few labelled values."""
    look = data.lookup
    d_sae = _whole(look("sae", "d_sae"))
    return [
        (
            "Model",
            f"{look('model', 'name')} ({look('model', 'n_layers')} layers, width "
            f"{look('model', 'd_model')})",
        ),
        ("Read at", look("sae", "hook_name")),
        ("SAE", f"{look('sae', 'architecture')}, {d_sae} features{_k(data)}{_loaded(data)}"),
        (
            "Text it was measured on" if _loaded(data) else "Text for the SAE",
            f"{look('corpus', 'name')}: {_whole(look('corpus', 'n_documents'))} documents, "
            f"{_whole(look('corpus', 'n_tokens'))} tokens",
        ),
        (
            "Battery",
            f"{look('battery', 'name')}: {look('battery', 'n_pairs')} pairs in "
            f"{look('battery', 'n_clusters')} scene groups",
        ),
        ("Emotions", listing(_emotions(data)) or "not recorded"),
    ]


def _k(data: RunData) -> str:
    """', k = 32'; '' for an architecture without a k."""
    sae = data.info.get("sae")
    k = sae.get("k") if isinstance(sae, Mapping) else None
    return f", k = {k:g}" if isinstance(k, int | float) and k else ""


def _loaded(data: RunData) -> str:
    """', loaded from NAME'; '' for an SAE that the run trained."""
    sae = data.info.get("sae")
    if not isinstance(sae, Mapping) or sae.get("trained", True):
        return ""
    revision = f", commit {sae['revision']}" if sae.get("revision") else ""
    return f", loaded: {sae.get('name')}{revision}"


def _whole(text: str) -> str:
    return f"{int(text):,}" if text.isdecimal() else text


def _emotions(data: RunData) -> list[str]:
    if data.summary is not None:
        return list(data.summary.emotions)
    battery = data.info.get("battery")
    listed = battery.get("emotions") if isinstance(battery, Mapping) else None
    return [str(e) for e in listed] if isinstance(listed, list) else []


def provenance(data: RunData) -> list[tuple[str, str]]:
    """Versions, hashes and seeds, flat; "not recorded" where run.json lacks them."""
    look = data.lookup
    rows = [
        ("AffectLens", look("affectlens")),
        ("Created", look("created")),
        ("Platform", look("platform")),
        ("Model revision", look("model", "revision")),
        ("Model SHA-256", look("model", "sha256")),
        ("Tokenizer SHA-256", look("tokenizer_sha256")),
        ("Corpus SHA-256", look("corpus", "sha256")),
        ("Battery SHA-256", look("battery", "sha256")),
        ("SAE SHA-256", look("sae", "sha256")),
        ("Config SHA-256", look("config_sha256")),
        ("Seeds", _pairs(data.info.get("seeds"))),
        ("Versions", _pairs(data.info.get("versions"))),
    ]
    return [*rows, ("Stages", _stages(data.info.get("stages")))]


def _pairs(value: Any) -> str:
    if not isinstance(value, Mapping) or not value:
        return "not recorded"
    return ", ".join(f"{k} {v}" for k, v in value.items())


def _stages(value: Any) -> str:
    if not isinstance(value, Mapping) or not value:
        return "not recorded"
    return ", ".join(_stage_texts(value.items()))


def _stage_texts(items: Iterable[tuple[Any, Any]]) -> Iterable[str]:
    for name, stage in items:
        seconds = stage.get("seconds") if isinstance(stage, Mapping) else None
        took = f"{seconds:.0f} s" if isinstance(seconds, (int, float)) else "time not recorded"
        reused = isinstance(stage, Mapping) and bool(stage.get("reused"))
        yield f"{name} {took}{' (reused)' if reused else ''}"
