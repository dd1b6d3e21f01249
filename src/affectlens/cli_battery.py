"""`affectlens battery`: list, show, export, check, audit, defend and rate batteries."""

from __future__ import annotations

import enum
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens import cli_battery_audit, cli_battery_defend, cli_battery_rate
from affectlens.cli_battery_input import DEFAULT, LIMIT, Name, load_chosen
from affectlens.cli_options import Common, group, verb
from affectlens.data.errors import ConfigError
from affectlens.features.config import AuditConfig

if TYPE_CHECKING:
    from affectlens.data.stimuli import Battery


class Format(enum.Enum):
    """File formats of `export`."""

    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


class Rules(enum.Enum):
    """Profiles of `validate`."""

    vignettes = "vignettes"
    balanced = "balanced"
    isolexical = "isolexical"


def BATTERY() -> typer.Typer:  # noqa: N802 - made once, named like the group
    """The group of commands."""
    app = group(
        "Batteries of matched emotional and neutral texts.",
        "affectlens battery list\naffectlens battery show --limit 3",
    )
    verb(app, "list", examples="affectlens battery list", limit="first N batteries")(list_all)
    verb(
        app,
        "show",
        limit=LIMIT,
        examples="""affectlens battery show
        affectlens battery show affectlens-vignettes --emotion grief --limit 2
        affectlens battery show mine.jsonl --json""",
    )(show)
    verb(
        app,
        "export",
        limit=LIMIT,
        examples="""affectlens battery export affectlens-vignettes vignettes.csv
        affectlens battery export mine.jsonl mine.parquet
        affectlens battery export comments.csv items.jsonl --layout labels --scheme ekman""",
    )(export)
    verb(app, "validate", limit=LIMIT, examples="affectlens battery validate mine.csv --strict")(
        validate
    )
    verb(
        app,
        "audit",
        limit=LIMIT,
        config=AuditConfig,
        examples=cli_battery_audit.EXAMPLES,
    )(cli_battery_audit.audit)
    verb(app, "defend", limit=LIMIT, examples=cli_battery_defend.EXAMPLES)(
        cli_battery_defend.defend
    )
    verb(app, "rate", limit=cli_battery_rate.LIMIT, examples=cli_battery_rate.EXAMPLES)(
        cli_battery_rate.rate
    )
    return app


def list_all(common: Common) -> None:
    """List the batteries that are known by name."""
    from affectlens.data.stimuli import list_batteries

    known = list_batteries()[: common.limit]
    common.console.table(
        ["name", "offline", "licence", "description"],
        [[b.name, b.offline, b.licence, b.description] for b in known],
    )
    common.console.result({"batteries": [asdict(b) for b in known]})


def show(
    common: Common,
    battery: Name = DEFAULT,
    emotion: Annotated[
        list[str] | None, typer.Option(help="only this emotion (repeatable)", metavar="NAME")
    ] = None,
) -> None:
    """Show a battery's pairs."""
    chosen = load_chosen(battery, common, emotion)
    console = common.console
    console.say(f"{chosen.name}: {_counts(chosen)}; licence {chosen.licence}")
    for pair in chosen.pairs:
        label = pair.clinical.domain_label or pair.clinical.domain
        console.say(f"\n{pair.emotion}, {label}")
        console.say(f"  {pair.clinical.id}: {pair.clinical.text}")
        console.say(f"  {pair.neutral.id}: {pair.neutral.text}")
    console.result({**_summary(chosen), "items": [asdict(item) for item in chosen.items]})


def export(
    common: Common,
    battery: Name,
    out: Annotated[Path, typer.Argument(help="file to write", metavar="FILE")],
    format: Annotated[
        Format | None,
        typer.Option(help="instead of what the file's suffix says", metavar="[jsonl|csv|parquet]"),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="what the file holds: auto, items, sev, pairs, labels, goemotions, appraisals",
            metavar="NAME",
        ),
    ] = "auto",
    scheme: Annotated[
        str | None,
        typer.Option(help="whose labels a label file uses, such as ekman", metavar="NAME"),
    ] = None,
) -> None:
    """Write a battery, whatever its layout, as one JSON lines, CSV or parquet file of items."""
    from affectlens.data.battery_files import write_battery

    chosen = load_chosen(battery, common, layout=layout, scheme=scheme)
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"no such folder: {out.absolute().parent}")
    path = write_battery(chosen, out, format.value if format else None)
    common.console.say(f"wrote {len(chosen.items)} items to {path}")
    common.console.result({**_summary(chosen), "path": path})


def validate(
    common: Common,
    battery: Name,
    profile: Annotated[
        Rules | None,
        typer.Option(
            help="what the pairs are meant to be; unset, guessed",
            metavar="[vignettes|balanced|isolexical]",
        ),
    ] = None,
    strict: Annotated[  # noqa: FBT002 - typer's way of declaring a flag
        bool, typer.Option("--strict", help="end with code 3 if any rule is broken")
    ] = False,
) -> None:
    """Check a battery's schema and pairing, and every rule of writing, item by item.

    Ends with code 2 if the battery cannot be used; broken rules alone are listed and end with 0.
    """
    from affectlens.features.findings import guess_profile
    from affectlens.features.findings import validate as findings_of

    chosen = load_chosen(battery, common)
    kind = profile.value if profile else guess_profile(chosen)
    found = findings_of(chosen, kind)
    console = common.console
    console.say(f"{chosen.name} is valid: {_counts(chosen)}; rules for {kind}")
    for finding in found:
        console.say(f"{finding.kind}: {finding.message}")
    if not found:
        console.say("no rule of writing is broken")
    console.result(
        {
            **_summary(chosen),
            "valid": True,
            "profile": kind,
            "findings": [asdict(finding) for finding in found],
        }
    )
    if strict and found:
        raise typer.Exit(3)


def _counts(battery: Battery) -> str:
    return (
        f"{len(battery.pairs)} pairs, {len(battery.clusters)} clusters, "
        f"{len(battery.emotions)} emotions, {len(battery.unpaired)} unpaired items"
    )


def _summary(battery: Battery) -> dict[str, Any]:
    return {
        "name": battery.name,
        "source": battery.source,
        "sha256": battery.sha256,
        "licence": battery.licence,
        "n_items": len(battery.items),
        "n_pairs": len(battery.pairs),
        "n_clusters": len(battery.clusters),
        "emotions": battery.emotions,
    }
