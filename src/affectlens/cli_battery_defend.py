"""`affectlens battery defend`: valence lexicon, emotion lexicon and classifier on a battery."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.cli_battery_input import DEFAULT, Name, load_chosen
from affectlens.cli_options import Common
from affectlens.data.errors import ConfigError

if TYPE_CHECKING:
    from affectlens.data.models import LanguageModel
    from affectlens.features.defence_card import DefenceCard

EXAMPLES = """affectlens battery defend
affectlens battery defend mine.jsonl --model none --nrc NRC-Emotion-Lexicon.txt
affectlens battery defend mine.jsonl --classifier my-classifier/ --out defence.json"""

_NO_MODEL = "none"


def defend(
    common: Common,
    battery: Name = DEFAULT,
    model: Annotated[
        str | None,
        typer.Option(
            help="language model whose emotion-word readout is taken; without a classifier the "
            "default model, 'none' for the lexica alone",
            metavar="NAME",
        ),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            help="text-classification model: a folder, a hub id, or ID@REVISION (safetensors only)",
            metavar="NAME",
        ),
    ] = None,
    neutral_label: Annotated[
        str | None,
        typer.Option(help="the classifier's label for no emotion, if not neutral", metavar="LABEL"),
    ] = None,
    nrc: Annotated[
        Path | None,
        typer.Option(help="your copy of the NRC Emotion Lexicon, word level", metavar="FILE"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="also write the card as JSON", metavar="FILE")
    ] = None,
) -> None:
    """Run the three-method defence: VADER, an emotion lexicon, and a classifier or readout.

    None of the methods is trained on the battery; `battery audit` has those that are.
    """
    if neutral_label is not None and classifier is None:
        raise ConfigError("--neutral-label names a label of the classifier: give --classifier too")
    card = _card(common, battery, model, classifier, neutral_label, nrc)
    if out is not None:
        card.write(out)
    _show(common, card)
    if out is not None:
        common.console.say(f"card: {out}")
    from affectlens.features.defence_card import PUBLISHED, PUBLISHED_SOURCE

    common.console.result(
        {
            **asdict(card),
            "reading": card.reading,
            "published": [asdict(p) for p in PUBLISHED],
            "published_source": PUBLISHED_SOURCE,
        }
    )


def _card(
    common: Common,
    battery: str,
    model: str | None,
    classifier: str | None,
    neutral_label: str | None,
    nrc: Path | None,
) -> DefenceCard:
    from affectlens.data.emotion_lexicon import read_nrc
    from affectlens.features.defence import DefenceConfig
    from affectlens.features.defence import defend as run

    chosen = load_chosen(battery, common)
    lexicon = read_nrc(nrc) if nrc is not None else None
    loaded = None
    if classifier is not None:
        from affectlens.features.defence_classifier import load_classifier

        loaded = load_classifier(
            classifier, neutral_label=neutral_label, device=common.device or "cpu"
        )
    return run(
        chosen,
        nrc=lexicon,
        classifier=loaded,
        lm=_model(model, common, needed=classifier is None),
        config=DefenceConfig.parse({} if common.seed is None else {"seed": common.seed}),
    )


def _model(name: str | None, common: Common, *, needed: bool) -> LanguageModel | None:
    if name == _NO_MODEL or (name is None and not needed):
        return None
    from affectlens.data.models import DEFAULT_MODEL, load_model

    return load_model(name or DEFAULT_MODEL, device=common.device or "cpu")


def _show(common: Common, card: DefenceCard) -> None:
    from affectlens.features.defence_card import METHODS, PUBLISHED_SOURCE

    console = common.console
    used = ", ".join(
        f"{kind} {name}"
        for kind, name in (("classifier", card.classifier), ("model", card.model))
        if name
    )
    console.say(
        f"{card.battery}: {card.n_pairs} pairs, {card.n_clusters} clusters; "
        f"{used or 'no classifier and no model'}\n"
    )
    console.table(
        ["method", "measure", "split", "n", "median", "mean", "mean |x|", "sum", "AIPsy-Affect"],
        [_row(METHODS, row) for row in card.table.to_dict("records")],
    )
    console.say(f"\nAIPsy-Affect: {PUBLISHED_SOURCE}. Rows without n are not measured here.")
    console.say("\nclinical against neutral members")
    console.table(
        ["method", "measure", "pairs of", "n", "clusters", "difference", "d_z", "share higher",
         "p MWU", "p Wilcoxon", "p pairs", "p clusters", "p Holm"],
        [
            [METHODS[t.method], t.measure, t.group, t.n_pairs, t.n_clusters, t.mean_diff, t.d_z,
             t.share_higher, t.mwu_p, t.p_wilcoxon, t.p_pairs, t.p_clusters, t.p_holm]
            for t in card.tests
        ],
    )  # fmt: skip
    for published in card.tests_frame().query("published != ''").itertuples():
        console.say(f"AIPsy-Affect, {METHODS[published.method]}: {published.published}")
    console.say()
    for line in card.reading:
        console.say(line)


def _row(methods: Any, row: dict[str, Any]) -> list[Any]:
    def own(key: str) -> float | None:
        return None if row[key] != row[key] else float(row[key])

    published = ", ".join(
        f"{key.removeprefix('published_').replace('mean_abs', 'mean |x|')} {value:.4g}"
        for key, value in row.items()
        if key.startswith("published_") and value == value
    )
    return [
        methods[row["method"]],
        row["measure"],
        row["split"],
        int(row["n"]) or None,
        *(own(key) for key in ("median", "mean", "mean_abs", "total")),
        published,
    ]
