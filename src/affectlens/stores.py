"""A store of activations, or the folder of one: the plain functions take either."""

from __future__ import annotations

from pathlib import Path

from affectlens.data.store import ActivationStore

StoreOrFolder = ActivationStore | str | Path
"""An open store, or the folder that `harvest` wrote."""


def opened(store: StoreOrFolder) -> ActivationStore:
    """The store itself, or the one in the folder."""
    return store if isinstance(store, ActivationStore) else ActivationStore.open(store)
