"""Every stage that uses an SAE is preceded by its check; a misfit is refused unless named.

The check is made once for an SAE and a model. Its outcome is kept with the SAE object
(`SparseAutoencoder.fit`), where `features.fit.require_fit` finds it, and in a run folder as
`check/check.json`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from affectlens.data.errors import ArtifactError
from affectlens.data.models import LanguageModel
from affectlens.data.store import ActivationStore
from affectlens.features.misfits import misfit_of
from affectlens.sae.model import FitRecord, SparseAutoencoder
from affectlens.training.check import SAECheck, check_sae

logger = logging.getLogger("affectlens")

GUARD_TOKENS = 1_024
"""Tokens that decide whether an SAE fits: a misfit shows as a factor, not as a few percent."""


def ensure_checked(
    sae: SparseAutoencoder,
    lm: LanguageModel,
    store: ActivationStore | None = None,
    *,
    file: Path | None = None,
) -> None:
    """Check the SAE on this model unless that was done, and note the outcome on the SAE.

    Nothing is refused here: the stage that comes next refuses, and knows what may be overridden.

    Args:
        sae: the SAE; its `fit` is set.
        lm: the model.
        store: activations to measure on, if they hold the SAE's place; else embedded text is read.
        file: where the check of this SAE and model is kept; read if it is there, else written.
    """
    if sae.fit is not None and sae.fit.model_fingerprint == lm.fingerprint:
        return
    if file is not None:
        recall(sae, file)
    if sae.fit is not None and sae.fit.model_fingerprint == lm.fingerprint:
        return
    logger.info("checking that the SAE fits %s", lm.name)
    check = check_sae(sae, lm, _usable(store, sae, lm), max_tokens=GUARD_TOKENS)
    if file is not None:
        check.write(file)
    note(sae, check)


def recall(sae: SparseAutoencoder, file: Path) -> None:
    """Note what a check on file found, if it is readable and of this SAE."""
    try:
        check = SAECheck.read(file)
    except ArtifactError:
        return
    if check.sae.get("sha256") == sae.info.sha256:
        note(sae, check)


def note(sae: SparseAutoencoder, check: SAECheck) -> None:
    """Note a check's outcome on the SAE: its failing lines, by the name that overrides them.

    A check without a model says nothing about the fit and is not noted.
    """
    if check.model_fingerprint is None:
        return
    failed = {misfit_of(line.name): line.why for line in check.lines if line.verdict == "fail"}
    sae.fit = FitRecord(check.model_fingerprint, check.measured_on, failed)


def _usable(
    store: ActivationStore | None, sae: SparseAutoencoder, lm: LanguageModel
) -> ActivationStore | None:
    """The store, if a check on it says something of the SAE and not of a wrong store."""
    if store is None or store.d_model != sae.d_in:
        return None
    made = (store.provenance.get("model") or {}).get("fingerprint")
    return store if made in (None, lm.fingerprint) else None
