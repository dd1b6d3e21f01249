"""What a run knows of its features, for the page: names, classes, what beat its controls.

Names are texts of a model and a corpus; the page shows them as text only.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.data.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from affectlens.data.models import LanguageModel
    from affectlens.features.naming import FeatureName
    from affectlens.features.search import SearchResult
    from affectlens.sae.model import SparseAutoencoder

ALL = "all"
N_PRESETS = 5
N_WORDS = 6
N_HITS = 20


@dataclass(frozen=True)
class Finding:
    """What the search and its lexical controls say of a feature in one contrast."""

    contrast: str
    confirmed: bool
    kind: str
    why: str


@dataclass(frozen=True)
class FeatureCard:
    """What is known of one feature.

    Attributes:
        feature: latent of the SAE.
        max_active: largest activation on held-out text; None if it never fired there.
        firing_rate: share of held-out tokens on which it fires; None without statistics.
        fires_on: tokens that hold most of its activation; empty where it was not named.
        promotes: tokens it promotes by the logit lens; empty likewise.
        findings: what was tested of it.
    """

    feature: int
    max_active: float | None = None
    firing_rate: float | None = None
    fires_on: tuple[str, ...] = ()
    promotes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def words(self) -> str:
        """What a search by words looks into, in lower case."""
        contrasts = (finding.contrast for finding in self.findings)
        return " ".join([*self.fires_on, *self.promotes, *contrasts]).casefold()


@dataclass(frozen=True)
class Preset:
    """The leading features of a contrast, and what a clamp of some of them did.

    `clamp` is the verdict on the features that were clamped together, in words; '' without one.
    """

    contrast: str
    by_input: tuple[int, ...]
    by_output: tuple[int, ...]
    clamp: str


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What the page may know of a run.

    Attributes:
        run: the run's name.
        model: the model's name.
        hook: where the SAE reads.
        sae: hash of the SAE.
        d_sae: latents of the SAE.
        cards: what is known, by feature; those without a card are unknown.
        presets: by contrast.
        maxima: largest held-out activation of each feature that fired there.
    """

    run: str
    model: str
    hook: str
    sae: str
    d_sae: int
    cards: Mapping[int, FeatureCard] = field(repr=False, default_factory=dict)
    presets: tuple[Preset, ...] = ()
    maxima: Mapping[int, float] = field(repr=False, default_factory=dict)

    def card(self, feature: int) -> FeatureCard:
        """The card of a feature.

        Raises:
            ConfigError: it is outside the SAE.
        """
        if not 0 <= feature < self.d_sae:
            raise ConfigError(
                f"feature {feature} is outside the SAE: allowed are 0 to {self.d_sae - 1}"
            )
        return self.cards.get(feature, FeatureCard(feature))

    def find(self, words: str) -> tuple[list[FeatureCard], int]:
        """Cards that hold all words or have the number, and how many there are in all."""
        parts = words.casefold().replace("#", " ").split()
        if not parts:
            return [], 0
        if len(parts) == 1 and parts[0].isdecimal():
            return [self.card(int(parts[0]))], 1
        named = (card for card in self.cards.values() if card.words)
        hits = [card for card in named if all(part in card.words for part in parts)]
        return hits[:N_HITS], len(hits)

    def any_other(self, seed: int) -> FeatureCard:
        """A feature that fires, and that the run found nothing about: a control.

        Raises:
            ConfigError: there is none.
        """
        plain = sorted(f for f in self.maxima if not self.card(f).findings)
        if not plain:
            raise ConfigError("the run holds no feature that fires and was not found")
        return self.card(random.Random(seed).choice(plain))

    def shown(self) -> dict[str, Any]:
        """What the page needs at its start."""
        wanted = dict.fromkeys(f for p in self.presets for f in (*p.by_input, *p.by_output))
        return {
            "run": self.run,
            "model": self.model,
            "hook": self.hook,
            "sae": self.sae,
            "d_sae": self.d_sae,
            "presets": [asdict(preset) for preset in self.presets],
            "cards": [asdict(self.card(feature)) for feature in wanted],
        }


def read_catalogue(
    run: Path, found: SearchResult, *, model: str, hook: str, sae: str, d_sae: int
) -> Catalogue:
    """Gather what a run holds.

    Args:
        run: the run's folder.
        found: its search.
        model: the model's name.
        hook: where the SAE reads.
        sae: hash of the SAE.
        d_sae: latents of the SAE.

    Raises:
        ArtifactError: a file of the run is damaged.
    """
    names = _names(run)
    findings = _findings(run, found)
    verdicts = _verdicts(run)
    presets = tuple(_preset(found, name, verdicts) for name in _best_first(found))
    presets = tuple(p for p in presets if p.by_input or p.by_output)
    rates = dict(zip(found.stats["feature"].astype(int), found.stats["firing_rate"], strict=True))
    tops = dict(zip(found.stats["feature"].astype(int), found.stats["max_active"], strict=True))
    maxima = {int(f): float(top) for f, top in tops.items() if top > 0}
    cards = {
        int(f): FeatureCard(
            int(f),
            maxima.get(f),
            float(rates[f]) if f in rates else None,
            *_words(names.get(f)),
            findings.get(f, ()),
        )
        for f in sorted({*rates, *names, *findings})
    }
    return Catalogue(run.resolve().name, model, hook, sae, d_sae, cards, presets, maxima)


def with_lenses(catalogue: Catalogue, lm: LanguageModel, sae: SparseAutoencoder) -> Catalogue:
    """The same, with what their directions promote for presets that the run did not name.

    A model whose unembedding cannot be read leaves them as they are.
    """
    import torch

    from affectlens.data.errors import ModelError
    from affectlens.features.logit_lens import lenses, unembedding

    shown = {f for p in catalogue.presets for f in (*p.by_input, *p.by_output)}
    bare = sorted(f for f in shown if not catalogue.card(f).promotes)
    try:
        found = lenses(unembedding(lm), sae.W_dec[torch.tensor(bare, dtype=torch.long)], N_WORDS)
    except ModelError:
        return catalogue
    cards = dict(catalogue.cards)
    for feature, lens in zip(bare, found, strict=True):
        words = tuple(token.text for token in lens.promoted)
        cards[feature] = replace(catalogue.card(feature), promotes=words)
    return replace(catalogue, cards=cards)


def _best_first(found: SearchResult) -> list[str]:
    """Contrasts, those with the most confirmed features first; 'all' before any emotion."""
    confirmed = found.table.loc[found.table["confirmed"], "contrast"].value_counts()
    order = sorted(found.contrasts, key=lambda name: -int(confirmed.get(name, 0)))
    return sorted(order, key=lambda name: name != ALL)


def _names(run: Path) -> dict[int, FeatureName]:
    from affectlens.features.naming_files import read_names

    path = run / "naming/names.jsonl"
    return {n.feature: n for n in read_names(path).names} if path.exists() else {}


def _words(name: FeatureName | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if name is None:
        return (), ()
    fires = tuple(token.text for token in name.tokens.top[:N_WORDS])
    return fires, tuple(token.text for token in name.lens.promoted[:N_WORDS])


def _findings(run: Path, found: SearchResult) -> dict[int, tuple[Finding, ...]]:
    controls = _table(run, "search/controls")
    said: dict[tuple[str, int], tuple[str, str]] = {}
    if controls is not None:
        keys = zip(controls["contrast"], controls["feature"].astype(int), strict=True)
        said = dict(zip(keys, zip(controls["class"], controls["why"], strict=True), strict=True))
    rows = found.table[found.table["retained"]]
    out: dict[int, list[Finding]] = {}
    for contrast, feature, confirmed in zip(
        rows["contrast"], rows["feature"].astype(int), rows["confirmed"], strict=True
    ):
        kind, why = said.get((contrast, feature), ("", ""))
        out.setdefault(feature, []).append(Finding(str(contrast), bool(confirmed), kind, why))
    return {feature: tuple(listed) for feature, listed in out.items()}


def _preset(found: SearchResult, contrast: str, verdicts: Mapping[str, str]) -> Preset:
    by_output: Sequence[int] = ()
    if found.screen is not None:
        by_output = found.top(contrast, N_PRESETS, by="output")
    return Preset(
        contrast,
        tuple(found.top(contrast, N_PRESETS)),
        tuple(by_output),
        verdicts.get(contrast, ""),
    )


def _verdicts(run: Path) -> dict[str, str]:
    """What clamping the leading features of each contrast did, in words."""
    table = _table(run, "effects/verdicts")
    if table is None:
        return {}
    rows = table[table["intervention"] == "clamp"]
    return {str(row["emotion"]): _verdict(row) for row in rows.to_dict("records")}


def _verdict(row: Mapping[Any, Any]) -> str:
    beats = "is stronger than" if row["beats_random"] else "is not shown to be stronger than"
    return (
        f"In this run, clamping the leading features by response together (to "
        f"{row['strength']:g} of their maximum) moved the readout by {row['effect']:+.2f} nats on "
        f"neutral texts. That {beats} all {row['n_random']} matched random sets (their mean "
        f"{row['random_mean']:+.2f}, range {row['random_low']:+.2f} to {row['random_high']:+.2f})."
    ).replace("-", "\u2212")


def _table(run: Path, name: str) -> pd.DataFrame | None:
    from affectlens.features.results import read_table

    return read_table(run, name) if (run / name).with_suffix(".parquet").exists() else None
