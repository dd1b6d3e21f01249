"""What the engine works on: a run's model, SAE and readout, and what is known of its features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from affectlens.demo.presets import Catalogue

if TYPE_CHECKING:
    from affectlens.data.models import LanguageModel
    from affectlens.demo.readout import TextReadout
    from affectlens.sae.model import SparseAutoencoder


@dataclass(frozen=True, eq=False)
class World:
    """Everything that is loaded.

    Attributes:
        lm: the model.
        sae: its autoencoder; that it fits was checked.
        catalogue: what the run knows of its features.
        readout: reads finished texts; None where the model lacks the words.
        no_readout: why there is none.
    """

    lm: LanguageModel
    sae: SparseAutoencoder
    catalogue: Catalogue
    readout: TextReadout | None
    no_readout: str = ""


def world_of(lm: LanguageModel, sae: SparseAutoencoder, catalogue: Catalogue) -> World:
    """Prepare the readout, if the model has words for it."""
    from affectlens.data.errors import ConfigError
    from affectlens.demo.readout import TextReadout

    try:
        return World(lm, sae, catalogue, TextReadout.build(lm))
    except ConfigError as error:
        return World(lm, sae, catalogue, None, str(error))
