"""What runs and comparisons show of themselves at a prompt and in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from affectlens.display.cards import Card, Shown, first_rows
from affectlens.display.words import listed, plural

if TYPE_CHECKING:
    from affectlens.null_search import NullSearch
    from affectlens.pipeline import RunResult
    from affectlens.sae_comparison import Comparison


class RunViews(Shown):
    """Card of a finished run."""

    def _card(self) -> Card:
        done = cast("RunResult", self)
        numbered = {f"finding {i}": said for i, said in enumerate(done.findings, 1)}
        return Card(
            "RunResult",
            f"{plural(len(done.stages), 'stage')} in {done.folder}",
            numbered,
            "" if numbered else "The run has no findings; its report says why.",
            calls={
                f'al.read_search("{done.folder}")': "the search as a result",
                f"affectlens report {done.folder}": "build the page again (command line)",
            },
        )


class ComparisonViews(Shown):
    """Card of an SAE beside others."""

    def _card(self) -> Card:
        result = cast("Comparison", self)
        names = list(dict.fromkeys(result.table["sae"].astype(str)))
        left = "; ".join(f"{name}: {why}" for name, why in result.skipped.items())
        columns = ["sae", "kind", "contrast", "n_confirmed", "n_sought", "n_recur", "base_recur"]
        return Card(
            "Comparison",
            f"{plural(len(names), 'SAE')} searched alike: {listed(names)}",
            {"passes over the model": str(result.n_passes)},
            f"Left out: {left}." if left else "",
            first_rows(result.table, "again.table", columns),
            {
                "again.table": "one row an SAE and contrast",
                "again.stability": "each retained latent in each other SAE",
            },
        )


class NullViews(Shown):
    """Card of a search where there is nothing to find."""

    def _card(self) -> Card:
        null = cast("NullSearch", self)
        s, table = null.summary, null.table
        found = table[table["sae"] != "this SAE"]["n_confirmed"].sum() if len(table) else 0
        columns = ["sae", "contrast", "status", "n_tested", "n_significant_fwer", "n_confirmed"]
        return Card(
            "NullSearch",
            f"the same search where there is nothing to find: {listed(s.names)}",
            {"trained as the SAE was": "yes" if s.comparable else "no, compare 'same budget'"},
            f"{int(found):,} latents are confirmed in SAEs of nothing; compare null.latents."
            if found
            else "",
            first_rows(table, "null.table", columns),
            {"null.table": "one row an SAE, pooling and contrast", "null.latents": "by latent"},
        )
