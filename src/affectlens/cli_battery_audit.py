"""`affectlens battery audit`: the lexical card of a battery; with a model the contextual card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.cli_battery_input import DEFAULT, Name, load_chosen
from affectlens.cli_options import Common
from affectlens.console import Console
from affectlens.data.errors import ConfigError
from affectlens.features.config import AuditConfig

if TYPE_CHECKING:
    from affectlens.data.stimuli import Battery
    from affectlens.features.contextual import ContextualCard
    from affectlens.features.lexical_card import LexicalCard

EXAMPLES = """affectlens battery audit
        affectlens battery audit mine.jsonl --out card.json
        affectlens battery audit affectlens-balanced --model smollm2-135m-instruct --out audit/
        affectlens battery audit aipsy-affect --scrambled variants/ --at-chance kept.jsonl"""


def audit(
    common: Common,
    settings: dict[str, Any],
    battery: Name = DEFAULT,
    model: Annotated[
        str | None,
        typer.Option(
            help="also: static embeddings, linear probes and emotion-word readout of this model",
            metavar="NAME",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="also write the card to a .json file, or card, tables and picture to a folder",
            metavar="PATH",
        ),
    ] = None,
    scrambled: Annotated[
        Path | None,
        typer.Option(
            help="also write the battery with scrambled texts, three grains, to this folder",
            metavar="FOLDER",
        ),
    ] = None,
    at_chance: Annotated[
        Path | None,
        typer.Option(
            help="also write the pairs on which a bag of words is at chance", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Measure how far words alone tell emotional from neutral texts."""
    from affectlens.features.lexical import audit as audit_battery

    config = AuditConfig.parse(settings)
    _writable(out, scrambled, at_chance)
    chosen = load_chosen(battery, common)
    static, context = None, None
    if model is not None:
        static, context = _context(chosen, model, config, common)
    card = audit_battery(chosen, config, static=static)
    console = common.console
    _print(console, card)
    if context is not None:
        _print_context(console, context)
    written = _write(out, card, context)
    if scrambled is not None:
        written += _write_scrambled(chosen, scrambled, config.seed)
    kept = _write_at_chance(chosen, at_chance, config, console) if at_chance is not None else None
    written += [at_chance] if kept and at_chance is not None else []
    for path in written:
        console.say(f"wrote {path}")
    console.result(
        {
            **asdict(card),
            "warning": card.warning,
            "contextual": asdict(context) if context is not None else None,
            "n_pairs_at_chance": kept,
            "written": written,
        }
    )


def _writable(out: Path | None, scrambled: Path | None, at_chance: Path | None) -> None:
    """Refuse impossible places before the work starts."""
    for path in (out, scrambled, at_chance):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"no such folder: {path.absolute().parent}")
    for path in (out, scrambled):
        if path is not None and path.suffix != ".json" and path.is_file():
            raise ConfigError(f"{path} is a file; give a folder, or a name that ends in .json")


def _context(battery: Battery, model: str, config: AuditConfig, common: Common) -> tuple[Any, Any]:
    from affectlens.data.models import load_model
    from affectlens.features.config import ContextConfig
    from affectlens.features.contextual import contextual_card, static_means

    lm = load_model(model, device=common.device or "cpu")
    settings = ContextConfig(
        n_folds=config.n_folds, n_bootstrap=config.n_bootstrap, seed=config.seed
    )
    return static_means(lm, battery), contextual_card(lm, battery, settings)


def _print(console: Console, card: LexicalCard) -> None:
    console.say(
        f"{card.battery}: {card.n_pairs} pairs, {card.n_clusters} clusters; chance is 0.50, "
        f"intervals over clusters"
    )
    console.table(
        ["control", "left out", "AUROC", "95 %", "paired", "95 %", "above"],
        [
            [
                s.control,
                s.grouping,
                s.auroc,
                _interval(s.auroc_low, s.auroc_high),
                s.paired_accuracy,
                _interval(s.paired_low, s.paired_high),
                max(s.auroc, s.paired_accuracy) > card.threshold,
            ]
            for s in card.controls
        ],
    )
    if card.words:
        console.say("\nwords on one side of the pairs, strongest first")
        console.table(
            ["word", "emotional only", "neutral only", "p (Holm)"],
            [[w.word, w.clinical_only, w.neutral_only, w.p_holm] for w in card.words],
        )
    console.say(
        f"\nshared words in a pair {card.jaccard_mean:.2f} (least {card.jaccard_min:.2f}, random "
        f"items {card.jaccard_random:.2f}); same words in another order: "
        f"{card.same_multiset:.0%} of pairs"
    )
    console.say(
        f"items with words of the emotion lexicon: {card.n_keyword_items}"
        + "".join(f"\n  {k.id}: {', '.join(k.words)}" for k in card.keywords)
    )
    crossing = sum(not d.same_cluster for d in card.near_duplicates)
    console.say(
        f"near-duplicates among different pairs: {card.n_near_duplicates}"
        + (f", {crossing} of those listed across clusters" if card.near_duplicates else "")
    )
    console.say(f"\n{card.warning or 'No control is above the threshold.'}")


def _print_context(console: Console, card: ContextualCard) -> None:
    console.say(f"\n{card.model}, read after {card.suffix!r}; whole clusters left out")
    console.table(
        ["layer", "place", "AUROC", "95 %", "paired", "95 %"],
        [
            [
                p.layer,
                p.place,
                p.auroc,
                _interval(p.auroc_low, p.auroc_high),
                p.paired_accuracy,
                _interval(p.paired_low, p.paired_high),
            ]
            for p in card.probes
        ],
    )
    console.table(
        ["readout", "pairs", "difference (nats)", "d_z", "p (Holm)"],
        [[r.emotion, r.n_pairs, r.mean_diff, r.d_z, r.p_holm] for r in card.readouts],
    )
    console.say(f"readout higher on the emotional members, p < .01: {card.n_read} emotions")


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def _write(out: Path | None, card: LexicalCard, context: ContextualCard | None) -> list[Path]:
    if out is None:
        return []
    if out.suffix == ".json":
        written = [card.write(out)]
        if context is not None:
            written.append(context.write(out.with_suffix(".contextual.json")))
        return written
    from affectlens.report.figures_battery import (
        battery_figure,
        probe_bars,
        write_battery_figure,
    )

    written = [card.write(out / "audit.json")]
    if context is not None:
        written.append(context.write(out / "contextual.json"))
    frames = {"controls": card.table, "words": card.words_table, "pairs": card.pairs_table}
    for name, frame in frames.items():
        path = out / f"{name}.csv"
        frame.to_csv(path, index=False)
        written.append(path)
    bars = probe_bars(context) if context is not None else ()
    return [*written, *write_battery_figure(battery_figure(card, bars), out)]


def _write_scrambled(battery: Battery, folder: Path, seed: int) -> list[Path]:
    import numpy as np

    from affectlens.data.battery_files import write_battery
    from affectlens.data.scramble import GRAINS
    from affectlens.data.scramble import scrambled as scramble

    written = []
    for number, grain in enumerate(GRAINS):
        variant = scramble(battery, grain, np.random.default_rng([seed, number]))
        written.append(write_battery(variant, folder / f"{grain}.jsonl"))
    return written


def _write_at_chance(battery: Battery, path: Path, config: AuditConfig, console: Console) -> int:
    from affectlens.data.battery_files import write_battery
    from affectlens.features.lexical_subset import chance_subset

    found = chance_subset(battery, config)
    if not found.reached:
        console.say(
            f"no subset of {battery.name!r} brings words down to chance: fewer than eight pairs "
            f"were left; {path} was not written"
        )
        return 0
    last = found.history[-1]
    console.say(
        f"{len(found.ids)} of {len(battery.pairs)} pairs are left at chance for words "
        f"({last.words:.2f}; characters {last.characters:.2f} on the same pairs). They were chosen "
        "by that classifier, so its score on them proves nothing."
    )
    write_battery(found.apply(battery), path)
    return len(found.ids)
