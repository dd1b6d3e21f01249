"""Whether an SAE belongs to a model; every stage that uses one asks here first.

Wrong can be the width, the place, the model itself (its fingerprint), and what a check of the SAE
on this model has measured (`SparseAutoencoder.fit`). The width cannot be overridden, since the
shapes do not go together. All else can be, by name: then the stage goes on, says so in its log, and
records it in what it writes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from affectlens.data.addresses import Address
from affectlens.data.errors import HookError
from affectlens.data.models import LanguageModel
from affectlens.data.store import ActivationStore
from affectlens.features.misfits import allowed_names
from affectlens.sae.errors import SAEError
from affectlens.sae.loading import check_fit
from affectlens.sae.model import SparseAutoencoder

logger = logging.getLogger("affectlens")


def require_fit(
    sae: SparseAutoencoder,
    lm: LanguageModel,
    *,
    store: ActivationStore | None = None,
    allow: Sequence[str] = (),
) -> list[str]:
    """Refuse an SAE that does not belong to the model, or to the activations.

    Args:
        sae: the SAE.
        lm: the model it is about to read or edit.
        store: activations that are read beside the model.
        allow: misfits to pass over, by name (`misfits.MISFITS`).

    Returns:
        What was passed over because `allow` names it, one sentence each that begins with the
        name; empty where everything fits. Each is logged as a warning.

    Raises:
        SAEError: the SAE does not fit, its place lies outside the model, or it names none.
        ConfigError: an unknown name in `allow`.
    """
    allow = allowed_names(allow)
    check_fit(sae, d_model=lm.d_model)
    _check_place(sae, lm)
    passed = _pass_over(_other_weights(sae, lm.fingerprint), allow)
    if store is not None:
        check_fit(sae, d_model=store.d_model)
        made = (store.provenance.get("model") or {}).get("fingerprint")
        passed += _pass_over(_other_weights(sae, made), allow)
        if sae.info.model_fingerprint is None:
            passed += _pass_over(_other_maker(lm, made), allow)
        passed += _other_place(sae, store, allow)
    passed += _pass_over(_measured(sae, lm), allow)
    passed = list(dict.fromkeys(passed))
    for said in passed:
        logger.warning("the SAE does not fit, and this is overridden: %s", said)
    return passed


def stored_hook(
    sae: SparseAutoencoder, store: ActivationStore, *, allow: Sequence[str] = ()
) -> str:
    """The hook of a store that holds the SAE's place.

    The input of a block is the output of the block below, so either name finds the other. With
    'hook' allowed, the only hook of a store stands in for a place that is not there.

    Raises:
        SAEError: the store holds other places.
    """
    own = Address.parse(sae.info.hook_name)
    if name := own.among(store.hook_names):
        return name
    if "hook" in allow and len(store.hook_names) == 1:
        return store.hook_names[0]
    raise SAEError(
        f"the SAE belongs at {own.name!r}, but the store holds {', '.join(store.hook_names)}; "
        "harvest that place, leave the store out, or override 'hook' with a store of one place"
    )


def _check_place(sae: SparseAutoencoder, lm: LanguageModel) -> None:
    if not sae.info.hook_name:
        raise SAEError(
            "this SAE does not say which hook it reads; load it with its metadata, or give "
            "hook_name when converting it"
        )
    try:
        Address.parse(sae.info.hook_name).check(lm.n_layers)
    except HookError as error:
        raise SAEError(f"the SAE does not fit {lm.name}: {error}") from error


def _pass_over(found: Mapping[str, str], allow: Sequence[str]) -> list[str]:
    """What was found, one sentence each that begins with its name, if all of it is allowed."""
    left = {name: said for name, said in found.items() if name not in allow}
    if left:
        flags = " ".join(f"--allow-misfit {name}" for name in left)
        raise SAEError(
            f"{'; '.join(left.values())}. To go on all the same, override "
            f"{', '.join(map(repr, left))} ({flags}); the results will say so"
        )
    return [f"{name}: {said}" for name, said in found.items()]


def _other_weights(sae: SparseAutoencoder, fingerprint: str | None) -> dict[str, str]:
    try:
        check_fit(sae, fingerprint=fingerprint)
    except SAEError as error:
        return {"fingerprint": str(error)}
    return {}


def _other_maker(lm: LanguageModel, made: str | None) -> dict[str, str]:
    """A store of another model, where the SAE does not say which of the two is its own."""
    if made is None or made == lm.fingerprint:
        return {}
    said = (
        f"the store was made by a model with fingerprint {made[:12]}, the loaded model has "
        f"{lm.fingerprint[:12]}; harvest with the loaded model, or leave the store out"
    )
    return {"fingerprint": said}


def _measured(sae: SparseAutoencoder, lm: LanguageModel) -> dict[str, str]:
    """What a check on this model found to fail.

    Weights and place are left out: the model and the store at hand are looked at themselves.
    """
    if sae.fit is None or sae.fit.model_fingerprint != lm.fingerprint:
        return {}
    about = f"the check of this SAE on {lm.name} found a misfit ({sae.fit.measured_on})"
    failed = {n: why for n, why in sae.fit.failed.items() if n not in ("fingerprint", "hook")}
    return {name: f"{about}: {why}" for name, why in failed.items()}


def _other_place(sae: SparseAutoencoder, store: ActivationStore, allow: Sequence[str]) -> list[str]:
    own, used = sae.info.hook_name, stored_hook(sae, store, allow=allow)
    if Address.parse(used).as_output == Address.parse(own).as_output:
        return []
    return [f"hook: the SAE belongs at {own!r}, but the store holds {used!r} only, which is read"]
