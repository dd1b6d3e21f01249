"""How far two finished texts speak of each emotion, by the model's own words for what it reads.

The model reads without an edit, so that the bars measure the texts and not the edit itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from affectlens.data.errors import AffectLensError
from affectlens.data.models import LanguageModel
from affectlens.features.readouts import Readout, build_readout, readout_of


@dataclass(frozen=True, eq=False)
class TextReadout:
    """A readout prepared for one model."""

    lm: LanguageModel
    readout: Readout

    @classmethod
    def build(cls, lm: LanguageModel) -> TextReadout:
        """Prepare it with the default words and templates, calibrated.

        Raises:
            ConfigError: too few of the words are single tokens of this model.
        """
        return cls(lm, build_readout(lm))

    def event(self, texts: tuple[str, str]) -> dict[str, Any]:
        """The bars of a default and a steered text, in nats; or why there are none."""
        try:
            values = readout_of(self.lm, list(texts), self.readout)
        except AffectLensError as error:
            return {"type": "readout", "why": str(error)}
        names = list(self.readout.names)
        bars = [
            {"name": name, "values": [round(float(row[k]), 4) for row in values]}
            for k, name in enumerate(names)
        ]
        return {"type": "readout", "bars": bars}
