"""What a search and its screen show of themselves: cards and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import pandas as pd

from affectlens.data.errors import ConfigError
from affectlens.display.cards import Card, Shown, first_rows
from affectlens.display.words import ALL, contrast_label, counts, listed, number, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from affectlens.features.screened import Screen
    from affectlens.features.search import SearchResult

_ROWS = {
    "contrast": "contrast",
    "feature": "feature",
    "d_z": "d_z",
    "p_fwer": "family-wise p",
    "confirm_d_z": "confirmation d_z",
    "confirm_p_holm": "confirmation p",
    "confirmed": "confirmed",
}

CONTEXT_COLUMNS = ("feature", "doc_id", "position", "token", "activation", "text")


class SearchViews(Shown):
    """Card and figures of a search."""

    @property
    def plot(self) -> SearchPlots:
        """Figures on matplotlib axes: `volcano`, `ranked`, `pairs`, `specificity`, `density`."""
        return SearchPlots(cast("SearchResult", self))

    @property
    def contexts_table(self) -> pd.DataFrame:
        """One row a held-out place where a leading latent fires: text, peak token, activation."""
        rows = [
            (c.feature, c.doc_id, c.position, _whole(c.tokens[c.peak]), c.activations[c.peak],
             _whole("".join(c.tokens)))
            for c in cast("SearchResult", self).contexts
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=list(CONTEXT_COLUMNS))

    def _card(self) -> Card:
        return search_card(cast("SearchResult", self))


class SearchPlots:
    """Figures of a search; each takes axes or makes a figure, and returns the axes."""

    def __init__(self, found: SearchResult) -> None:
        self._found = found

    def volcano(self, contrast: str = ALL, *, ax: Axes | None = None) -> Axes:
        """Effect size against p of every latent tested in a contrast.

        Raises:
            ConfigError: an unknown contrast.
        """
        from affectlens.display.search_figures import volcano

        summary = self._found.summary
        min_p = summary.min_p.get(contrast, 0.0)
        rows = self._rows(contrast)
        return volcano(rows, contrast=contrast, alpha=summary.alpha, min_p=min_p, ax=ax)

    def ranked(self, contrast: str = ALL, *, n: int = 15, ax: Axes | None = None) -> Axes:
        """The `n` best latents of a contrast, where they were found and on scenes kept aside.

        Raises:
            ConfigError: an unknown contrast, or n below 1.
        """
        from affectlens.display.search_figures import ranked

        if n < 1:
            raise ConfigError(f"got n={n}; need at least 1 latent")
        return ranked(self._rows(contrast), contrast=contrast, n=n, ax=ax)

    def pairs(self, feature: int, *, ax: Axes | None = None) -> Axes:
        """Activation of a latent on each emotional text against its neutral twin.

        Raises:
            ConfigError: the latent is not among the leading ones, whose pairs are kept.
        """
        from affectlens.display.search_figures import pairs

        pooled = self._found.pooled
        own = pooled[pooled["feature"] == feature]
        if own.empty:
            known = [str(f) for f in dict.fromkeys(pooled["feature"])]
            raise ConfigError(
                f"pairs of latent {feature} are not kept, only those of the {len(known)} leading "
                f"ones: {listed(known, 12)}"
            )
        return pairs(own, feature=int(feature), ax=ax)

    def specificity(
        self, part: str = "confirmation", *, n: int = 2, ax: Axes | None = None
    ) -> Axes:
        """The `n` leading latents of each contrast against every emotion.

        Raises:
            ConfigError: nothing was measured on that part, or n below 1.
        """
        from affectlens.display.search_figures import specificity

        table = self._found.specificity
        own = table[table["part"] == part]
        if own.empty or n < 1:
            known = ", ".join(dict.fromkeys(table["part"].astype(str))) or "none"
            raise ConfigError(f"got part {part!r}, n={n}; measured parts: {known}, and n >= 1")
        emotions = list(self._found.summary.emotions)
        return specificity(own, emotions=emotions, part=part, n_rows=n, ax=ax)

    def density(self, *, ax: Axes | None = None) -> Axes:
        """How often the SAE's latents fire on held-out text; without a store on the battery's.

        Raises:
            ConfigError: nothing is known of it.
        """
        from affectlens.display.search_figures import density

        stats = self._found.stats
        if stats.empty:
            raise ConfigError("no text was read for this search; search with a store")
        of = "held-out tokens" if self._found.contexts else "tokens of the battery's own texts"
        return density(stats["firing_rate"], of=f"unmasked {of}", ax=ax)

    def _rows(self, contrast: str) -> pd.DataFrame:
        known = self._found.contrasts
        if contrast not in known:
            raise ConfigError(f"got contrast {contrast!r}; need one of {', '.join(known)}")
        return self._found.table[self._found.table["contrast"] == contrast]


def _whole(text: str) -> str:
    """`text` without halves of surrogate pairs, which a token can hold and a table cannot."""
    return text.encode("utf-8", "replace").decode()


def search_card(found: SearchResult) -> Card:
    """What was searched, what came out, what must be known of it, and what to ask next."""
    s = found.summary
    facts = {
        "pairs": f"{s.n_pairs_discovery:,} to discover ({s.n_clusters_discovery} clusters), "
        f"{s.n_pairs_confirmation:,} to confirm ({s.n_clusters_confirmation})",
        "confirmed on scenes kept aside": counts(s.n_confirmed),
        "of these after correction over all contrasts": counts(s.n_confirmed_family),
        "smallest effect found with power .8": f"d_z {number(s.min_detectable_d_z)} (any emotion)",
    }
    if found.controls is not None:
        table = found.controls.table
        classes = table.loc[table["confirmed"].astype(bool), "class"].value_counts()
        said = ", ".join(f"{kind} {n}" for kind, n in classes.items())
        facts["confirmed latents by lexical controls"] = said or "none to class"
    best = _best_emotion(found)
    chosen = f'found.top("{best}", 5)'
    calls = {
        "found.table": "one row a contrast and latent; found.contexts_table: where they fire",
        chosen: "the best latents of a contrast, for interventions",
        f'found.plot.ranked("{best}")': "or .volcano, .pairs(feature), .specificity, .density",
    }
    if found.controls is None:
        calls["al.lexical_controls(lm, sae, battery, found)"] = "words, or what they say?"
    calls[f"al.intervene(lm, sae, {chosen}, battery)"] = "what they do to the output"
    return Card(
        "SearchResult",
        f"{s.n_tested:,} of {s.n_features:,} latents tested on {s.battery or 'given activations'}",
        facts,
        " ".join(_search_warnings(found)),
        first_rows(found.table, "found.table", _ROWS),
        calls,
    )


def _best_emotion(found: SearchResult) -> str:
    """The emotion with most confirmed latents; 'all' if none has any."""
    own = {k: n for k, n in found.summary.n_confirmed.items() if k != ALL and n}
    return max(own, key=lambda k: own[k]) if own else ALL


def _search_warnings(found: SearchResult) -> list[str]:
    s, said = found.summary, []
    if not sum(s.n_confirmed.values()):
        said.append("Nothing is confirmed: no latent held on the scenes kept aside.")
    elif s.n_confirmed_family and not sum(s.n_confirmed_family.values()):
        said.append("No confirmed latent stays after correction over all contrasts together.")
    if s.misfits:
        said.append(f"Misfits were overridden: {'; '.join(s.misfits)}.")
    if s.lexical_warning:
        said.append(s.lexical_warning)
    return said


Edit = Literal["ablate", "clamp"]
_ESTIMATE = {"ablate": "attribution_ablate", "clamp": "attribution_clamp"}
_SCREEN_ROWS = {
    "contrast": "contrast",
    "feature": "feature",
    "attribution_ablate": "ablated, estimated (nats)",
    "exact_ablate": "measured (nats)",
    "attribution_clamp": "clamped, estimated (nats)",
    "exact_clamp": "measured (nats)",
    "output_score": "output score",
}


class ScreenViews(Shown):
    """Card and figure of a screen."""

    @property
    def plot(self) -> ScreenPlots:
        """Figures on matplotlib axes: `agreement`."""
        return ScreenPlots(cast("Screen", self))

    def _card(self) -> Card:
        return screen_card(cast("Screen", self))


class ScreenPlots:
    """Figures of a screen; each takes axes or makes a figure, and returns the axes."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def agreement(
        self, intervention: Edit = "clamp", contrast: str | None = None, *, ax: Axes | None = None
    ) -> Axes:
        """Estimated against measured effects of latents, of one contrast or of every one.

        Raises:
            ConfigError: an unknown contrast or intervention.
        """
        from affectlens.display.screen_figures import agreement

        if intervention not in _ESTIMATE:
            raise ConfigError(f"got intervention {intervention!r}; need 'ablate' or 'clamp'")
        table, agreed = self._screen.table, self._screen.agreement
        who = "every contrast"
        if contrast is not None:
            table, who = self._screen.of(contrast), contrast_label(contrast)
            agreed = agreed[agreed["contrast"] == contrast]
        own = pd.DataFrame(
            {
                "estimate": table[_ESTIMATE[intervention]],
                "exact": table[f"exact_{intervention}"],
                "sample": table[f"verified_{intervention}"],
            }
        )
        own = own[own["sample"].isin(["top", "random", "both"])]
        own = own[np.isfinite(own["estimate"]) & np.isfinite(own["exact"])]
        agreed = agreed[
            (agreed["estimator"] == "gradient")
            & (agreed["intervention"] == intervention)
            & (agreed["sample"] == "random")
        ]
        middle = float(agreed["pearson"].median()) if len(agreed) else np.nan
        return agreement(own, intervention=intervention, who=who, pearson=middle, ax=ax)


def screen_card(screen: Screen) -> Card:
    """What was screened, how far its estimates hold, and its strongest latents."""
    s = screen.summary
    table = screen.table
    order = table["attribution_clamp"].abs().sort_values(ascending=False, kind="stable").index
    facts = {
        "contrasts": listed([contrast_label(c) for c in s.contrasts], 10),
        "screened": f"{s.n_live:,} latents that fire; {s.n_dead:,} silent ones left out",
        "measured as well": ", ".join(f"{k} {n:,}" for k, n in s.n_measured.items()) or "none",
        "output scores": f"{s.n_scored:,}" + (f" ({s.unscored})" if s.unscored else ""),
    }
    said = ["A screen ranks latents by their effect on discovery texts; it makes no test."]
    if s.unread:
        said.append(f"Not read: {'; '.join(f'{k} ({why})' for k, why in s.unread.items())}.")
    if s.misfits:
        said.append(f"Misfits were overridden: {'; '.join(s.misfits)}.")
    rows = first_rows(
        table.loc[order], "screen.table", {c: h for c, h in _SCREEN_ROWS.items() if c in table}
    )
    return Card(
        "Screen",
        f"effect of every latent on the output, {plural(s.n_pairs, 'discovery pair')}",
        facts,
        " ".join(said),
        rows,
        {
            'found.top("grief", 5, by="output")': "latents by what they do",
            'screen.of("all")': "rows of one contrast, by latent",
            "screen.agreement": "estimates against measurements",
            "screen.plot.agreement()": "the same as a figure",
        },
    )
