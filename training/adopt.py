"""A loaded SAE in the place of a trained one: measured on held-out text, and kept with the run."""

from __future__ import annotations

from pathlib import Path

from affectlens.data.addresses import Address
from affectlens.data.models import LanguageModel
from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder
from affectlens.sae.saving import save_sae
from affectlens.training.evaluate import Store, evaluate, write_metrics


def place_of(sae: SparseAutoencoder) -> str:
    """The hook whose activations an SAE reads.

    Raises:
        SAEError: its files do not say.
    """
    if not sae.info.hook_name:
        raise SAEError(
            f"{sae.info.source} does not say where in the model it belongs; put hook_name into "
            "metadata of its cfg.json, such as blocks.8.hook_resid_pre"
        )
    return Address.parse(sae.info.hook_name).name


def adopt(
    sae: SparseAutoencoder, store: Store, out: Path, *, lm: LanguageModel | None = None
) -> None:
    """Measure a loaded SAE on the store's held-out documents and save it to `out`.

    The folder is the one that `train` would have written, with no training samples in its metrics,
    so the stages after it need not know which of the two it was.

    Args:
        sae: the SAE.
        store: activations at its place, with held-out documents.
        out: folder to write; an SAE there is replaced.
        lm: the model, for the loss-recovered metrics.

    Raises:
        SAEError: the SAE does not fit the store or the model, or `out` holds something else.
        ArtifactError: no held-out row.
    """
    result = evaluate(sae, store, lm, hook_name=place_of(sae))
    save_sae(sae, out)
    write_metrics(out / "metrics.json", sae, result)
