"""What a store of activations shows of itself: a card and a table of its hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from affectlens.display.cards import Card, Shown, first_rows
from affectlens.display.words import plural, share

if TYPE_CHECKING:
    import pandas as pd

    from affectlens.data.store import ActivationStore


class StoreViews(Shown):
    """Card and table of a store."""

    @property
    def table(self) -> pd.DataFrame:
        """One row a hook: content tokens of both parts, masked tokens, the mask's norm limit."""
        import pandas as pd

        store = cast("ActivationStore", self)
        rows = []
        for hook in store.hook_names:
            kept = store.n_kept(hook)
            rule = store.mask_rule(hook)
            rows.append(
                {
                    "hook": hook,
                    "n_train": store.n_kept(hook, "train"),
                    "n_heldout": store.n_kept(hook, "heldout"),
                    "n_masked": store.n_rows - kept,
                    "skip_first": rule.skip_first,
                    "norm_limit": rule.norm_limit,
                }
            )
        return pd.DataFrame(rows)

    def _card(self) -> Card:
        store = cast("ActivationStore", self)
        made = store.provenance
        corpus, model = made.get("corpus") or {}, made.get("model") or {}
        held = int(store.held_out.sum())
        facts = {
            "hooks": ", ".join(store.hook_names),
            "documents": f"{len(store.documents):,}, {held:,} of them never trained on "
            f"({share(held / max(len(store.documents), 1))})",
            "corpus": str(corpus.get("name", "not stated")),
            "model": str(model.get("name", "not stated")) if isinstance(model, dict) else "",
            "folder": str(store.folder),
        }
        return Card(
            "ActivationStore",
            f"{store.n_rows:,} rows of width {store.d_model}, "
            f"{plural(len(store.hook_names), 'hook')}",
            facts,
            calls={
                "store.table": "tokens and mask of each hook",
                'al.train(store, lm=lm, out="sae")': "an SAE on these activations",
            },
        )

    def _repr_html_(self) -> str:
        from dataclasses import replace

        # Counting tokens reads the mask of every shard, which a prompt should not wait for.
        return replace(self._card(), rows=first_rows(self.table, "store.table", _HEADS)).html()


_HEADS = {
    "hook": "hook",
    "n_train": "tokens to train on",
    "n_heldout": "held out",
    "n_masked": "masked",
    "norm_limit": "norm limit",
}
