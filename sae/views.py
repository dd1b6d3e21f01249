"""What an SAE shows of itself: a card, how often its latents fire, how near they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from affectlens.display.cards import Card, Shown
from affectlens.sae.errors import SAEError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from affectlens.sae.model import SparseAutoencoder

MOST_LATENTS = 2000
"""Latents whose nearest neighbour is looked up for a figure; evenly spaced ones if there are more,
so that an SAE of a million latents draws in seconds."""


class SAEViews(Shown):
    """Card and figures of an SAE."""

    @property
    def plot(self) -> SAEPlots:
        """Figures on matplotlib axes: `density`, `nearest`."""
        return SAEPlots(cast("SparseAutoencoder", self))

    def _card(self) -> Card:
        return sae_card(cast("SparseAutoencoder", self))


class SAEPlots:
    """Figures of an SAE; each takes axes or makes a figure, and returns the axes."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self._sae = sae

    def density(self, stats: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
        """How often its latents fire.

        Args:
            stats: one row a latent, column `firing_rate` (`found.stats`).
            ax: axes to draw on; None makes a figure.

        Raises:
            SAEError: the table is not of this SAE's latents.
        """
        from affectlens.display.search_figures import density

        if "firing_rate" not in stats or len(stats) != self._sae.d_sae:
            raise SAEError(
                f"got a table of {len(stats):,} rows with columns {', '.join(map(str, stats))}; "
                f"need one row for each of the {self._sae.d_sae:,} latents and a column "
                "firing_rate: give found.stats of a search with a store"
            )
        return density(stats["firing_rate"], of="unmasked held-out tokens", ax=ax)

    def nearest(self, *, ax: Axes | None = None) -> Axes:
        """How near the nearest other decoder row is; latents that nearly coincide are copies."""
        import torch

        from affectlens.display.weight_figures import nearest
        from affectlens.sae.metrics import nearest_rows

        rows, d_sae = self._sae.W_dec.detach(), self._sae.d_sae
        chosen = torch.linspace(0, d_sae - 1, min(d_sae, MOST_LATENTS)).round().long()
        chosen = chosen.unique().to(rows.device)
        found = nearest_rows(rows[chosen], rows, skip=chosen).cosine[:, 0]
        # Directions drawn anew show what the number of latents and the width alone would give.
        drawn = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
        few = chosen[:: max(1, len(chosen) // 200)].cpu()
        chance = nearest_rows(drawn[few], drawn, skip=few).cosine[:, 0].nanmedian()
        return nearest(found.double().cpu().numpy(), d_sae=d_sae, chance=float(chance), ax=ax)


def sae_card(sae: SparseAutoencoder) -> Card:
    """What an SAE is, where it belongs, and whether it is known to fit there."""
    info = sae.info
    per_token = f", {info.k} active a token" if info.k is not None else ""
    facts = {
        "reads": info.hook_name or "not recorded",
        "model": info.model_name or "not recorded",
        "mask": ("first token left out" if info.skip_first else "every token")
        + (f", norms to {info.norm_limit:,.0f}" if info.norm_limit is not None else ""),
        "from": info.source + (f" ({info.release})" if info.release else ""),
        "hash of the weights": f"{info.sha256[:12]} "
        + ("(the files match)" if info.verified else "(none recorded with the files to compare)"),
    }
    if sae.fit is not None:
        facts["fit"] = f"measured on {sae.fit.measured_on}" if not sae.fit.failed else "misfit"
    failed = [f"{name}: {why}" for name, why in (sae.fit.failed if sae.fit else {}).items()]
    said = [f"Does not fit: {'; '.join(failed)}."] if failed else []
    said += [f"{'; '.join(info.notes)}."] if info.notes else []
    return Card(
        "SparseAutoencoder",
        f"{info.architecture} SAE, {info.d_in:,} wide, {info.d_sae:,} latents{per_token}",
        facts,
        " ".join(said),
        calls={
            "al.sae_check(sae, lm=lm, store=store)": "does it fit this model, is it any good?",
            "al.search(lm, sae, battery, store=store)": "its features that respond to emotion",
            "sae.plot.nearest()": "do latents repeat each other?",
            "sae.plot.density(found.stats)": "how often latents fire",
        },
    )
