"""What the stages after a search show of themselves: controls, tests, baselines, calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from affectlens.display.cards import Card, Shown, first_rows
from affectlens.display.words import counts, listed, plural, share

if TYPE_CHECKING:
    from affectlens.features.baselines import Baselines
    from affectlens.features.calibration import Calibration
    from affectlens.features.lexical_controls import LexicalControls
    from affectlens.features.naming import FeatureNames
    from affectlens.features.validity import Validity


class ControlsViews(Shown):
    """Card of lexical controls."""

    def _card(self) -> Card:
        controls = cast("LexicalControls", self)
        s, table = controls.summary, controls.table
        held = table[table["confirmed"].astype(bool)] if len(table) else table
        classes = held["class"].value_counts().to_dict() if len(held) else {}
        words = int(classes.get("lexical", 0)) + int(classes.get("mixed", 0))
        said = ""
        if not len(held):
            said = "No latent is confirmed, so there is nothing to explain."
        elif words:
            said = (
                f"For {words} of {plural(len(held), 'confirmed latent')} words may carry the "
                "effect (lexical or mixed)."
            )
        return Card(
            "LexicalControls",
            f"words, or what they say? {plural(s.n_latents, 'retained latent')}, {s.part} part",
            {
                "confirmed, by class": counts({str(k): int(n) for k, n in classes.items()}),
                "pairs": f"{s.n_pairs:,}",
                "strict batteries": listed(s.strict) or "none",
                "passages for the words": f"{s.n_passages:,} of {s.corpus}",
            },
            said,
            first_rows(
                held if len(held) else table,
                "controls.table",
                ["contrast", "feature", "confirmed", "class", "kept", "predicted", "why"],
            ),
            {
                "controls.table": "every retained latent with its class and why",
                "controls.grains": "by grain of shuffling",
                "controls.strict": "on pairs of the same words",
            },
        )


class ValidityViews(Shown):
    """Card of tests of validity."""

    def _card(self) -> Card:
        validity = cast("Validity", self)
        table = validity.table
        decided = table[table["group"] == "verdict"] if len(table) else table
        facts = {}
        for test, own in decided.groupby("test", sort=False):
            verdicts = own["verdict"].value_counts()
            facts[str(test)] = ", ".join(f"{v} {n}" for v, n in verdicts.items())
        unknown = int((decided["verdict"] == "unknown").sum()) if len(decided) else 0
        said = (
            f"{plural(unknown, 'verdict')} of {len(decided):,} unknown: too little data to say."
            if unknown
            else ""
        )
        return Card(
            "Validity",
            "further tests of the retained latents",
            facts,
            said,
            first_rows(
                decided,
                "validity.table.query(\"group == 'verdict'\")",
                ["contrast", "feature", "test", "estimate", "low", "high", "verdict"],
            ),
            {
                "validity.table": "every test and group, with notes",
                "validity.shrinkage": "what is left in confirmation",
                "validity.matrix": "latents against every emotion",
                "validity.transfer_summary": "keywords and vignettes",
            },
        )


class BaselinesViews(Shown):
    """Card of baselines."""

    def _card(self) -> Card:
        result = cast("Baselines", self)
        s = result.summary
        facts = {
            f"{where}, {method}": ", ".join(f"{v} {n}" for v, n in said.items())
            for where, methods in s.verdicts.items()
            for method, said in methods.items()
        }
        kept = dict(list(facts.items())[:8])
        if len(facts) > len(kept):
            kept["more"] = f"{len(facts) - len(kept)} lines in baselines.summary.verdicts"
        return Card(
            "Baselines",
            f"simpler methods beside the SAE on {s.battery}, {plural(len(s.hooks), 'place')}",
            kept,
            f"Not tested for want of clusters: {listed(s.untested)}." if s.untested else "",
            first_rows(
                result.table,
                "baselines.table",
                ["evaluated_on", "target", "method", "layer", "auroc", "low", "high", "verdict"],
            ),
            {"baselines.table": "one row an evaluation, target, method and layer"},
        )


class NamesViews(Shown):
    """Card of feature names."""

    def _card(self) -> Card:
        names = cast("FeatureNames", self)
        table = names.table()
        kinds = table["kind"].value_counts().to_dict() if len(table) else {}
        return Card(
            "FeatureNames",
            f"what can be said of {plural(len(names.names), 'latent')} at {names.hook_name}",
            {
                "kinds": counts({str(k): int(n) for k, n in kinds.items()}),
                "read": f"{names.n_tokens:,} held-out tokens ({names.n_masked:,} masked)",
                "tokens on emotion words": share(names.emotion_token_rate),
            },
            "A kind describes and is no test; 'evokes' is what is left over.",
            first_rows(
                table,
                "names.table()",
                ["contrast", "feature", "kind", "firing_rate", "top_token", "promoted"],
            ),
            {
                "names.table()": "one row a contrast and latent",
                "names.names[0].groups": "contexts of a latent, strongest first",
            },
        )


class CalibrationViews(Shown):
    """Card of a calibration."""

    def _card(self) -> Card:
        calibration = cast("Calibration", self)
        s = calibration.summary
        said = (
            f"Outside what the level allows: {listed(s.outside)}. Read the search's p with care."
            if s.n_outside
            else ""
        )
        return Card(
            "Calibration",
            f"error rates and power of the search, {s.n_repeats} data sets a null, "
            f"{plural(s.n_pairs, 'pair')}",
            {
                "rates inside what the level allows": f"{s.n_rates - s.n_outside} of {s.n_rates}",
                "level": f"{s.alpha:g}",
                "left out": listed(list(s.skipped)) or "nothing",
            },
            said,
            first_rows(
                calibration.detectable,
                "calibration.detectable",
                ["contrast", "criterion", "n_pairs_discovery", "detectable", "formula"],
            ),
            {
                "calibration.rates": "errors under each null",
                "calibration.power": "recall and FDR with planted effects",
                "calibration.detectable": "smallest effect found with power .8",
            },
        )
