"""A run folder being filled: its inputs, loaded once and only when a stage really runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.data.artifacts import sha256_file
from affectlens.run_config import RunConfig
from affectlens.run_folder import RunFolder

if TYPE_CHECKING:
    from affectlens.after_search import AfterSearch
    from affectlens.data.activations import ActivationStore
    from affectlens.data.config import HarvestConfig
    from affectlens.data.models import LanguageModel
    from affectlens.data.stimuli import Battery
    from affectlens.features.search import SearchResult
    from affectlens.features.selection import FeatureSet
    from affectlens.sae.model import SparseAutoencoder

CHECK_FILE = "check/check.json"
"""Where a run folder keeps the check of its SAE."""

ASKED_FOR = (
    "calibration/rates.csv",
    "search/nulls.csv",
    "search/screen.csv",
    "steering/ranking.csv",
    "validity/comparison.csv",
)
"""What commands outside a run add to its folder, one table each; the report shows them."""


class Run(RunFolder):
    """A run folder being filled; heavy inputs are loaded only when a stage really runs."""

    def __init__(self, config: RunConfig, folder: Path, *, quiet: bool) -> None:
        super().__init__(folder)
        self.config, self.quiet = config, quiet

    @contextmanager
    def stage(self, name: str, key: Any, outputs: Sequence[str]) -> Iterator[bool]:
        """As in `RunFolder`; a stage that is left out keeps what it wrote with the same key only.

        Raises:
            ArtifactError: the body did not write one of `outputs`.
        """
        if name in self.config.skip and self.finished(name, key) is None:
            self.drop(name, outputs)
            self.log(name, "left out")
            yield False
            return
        with super().stage(name, key, outputs) as needed:
            yield needed

    @cached_property
    def lm(self) -> LanguageModel:
        """The model, loaded once."""
        from affectlens.data.models import load_model

        c = self.config
        return load_model(c.model, revision=c.revision, device=c.device, dtype=c.dtype)

    @cached_property
    def battery(self) -> Battery:
        """The battery."""
        from affectlens.data.stimuli import load_battery

        return load_battery(self.config.battery)

    @cached_property
    def store(self) -> ActivationStore:
        """The activations of this folder."""
        from affectlens.data.store import ActivationStore

        return ActivationStore.open(self.folder / "activations")

    @property
    def loaded_sae(self) -> dict[str, Any]:
        """The part of a stage's key that says which SAE is loaded; empty if one is trained."""
        return {} if self.config.sae is None else {"sae": input_identity(self.config.sae)}

    @cached_property
    def named_sae(self) -> SparseAutoencoder:
        """The autoencoder that the settings name."""
        from affectlens.sae.loading import load_sae_named

        return load_sae_named(self.config.sae or "", device=self.config.device)

    @property
    def harvest_config(self) -> HarvestConfig:
        """The settings of the harvest; of a loaded autoencoder only its own place is kept."""
        if self.config.sae is None:
            return self.config.harvest
        from affectlens.training.adopt import place_of

        return self.config.harvest.model_copy(update={"layers": (place_of(self.named_sae),)})

    @cached_property
    def sae(self) -> SparseAutoencoder:
        """The autoencoder of this folder, with what its check found."""
        from affectlens.guard import recall
        from affectlens.sae.loading import load_sae

        sae = load_sae(self.folder / "sae", device=self.config.device)
        recall(sae, self.folder / CHECK_FILE)
        return sae

    @cached_property
    def found(self) -> SearchResult:
        """The search of this folder."""
        from affectlens.features.stored import read_search

        return read_search(self.folder)

    def forget_search(self) -> None:
        """Read the search anew when it is next asked for, because its files have changed."""
        for name in ("found", "after_search"):
            self.__dict__.pop(name, None)

    @cached_property
    def after_search(self) -> AfterSearch:
        """The search of this folder with what it was made of."""
        from affectlens.after_search import AfterSearch
        from affectlens.features.stored import read_encoded

        encoded = read_encoded(self.folder)
        found = replace(self.found, encoded=encoded)
        settings = self.config.search
        return AfterSearch(self.lm, self.sae, self.battery, found, settings, encoded, self.quiet)

    @property
    def overridden(self) -> dict[str, Any]:
        """The part of a stage's key that says what is overridden; empty if nothing is."""
        allowed = sorted(set(self.config.allow_misfit))
        return {"allow_misfit": allowed} if allowed else {}

    @property
    def report_key(self) -> dict[str, Any]:
        """What the report depends on: every stage, and what other commands have added since."""
        added = (self.folder / name for name in ASKED_FOR)
        tables = {str(p.relative_to(self.folder)): sha256_file(p) for p in added if p.is_file()}
        return {"keys": dict(self.keys), "added": tables}

    def chosen(self) -> list[FeatureSet]:
        """The best live features of every contrast that has any."""
        n = self.config.intervene.features_per_emotion
        sets = [self.found.top(name, n) for name in self.found.contrasts]
        return [s for s in sets if len(s)]


def input_identity(name: str) -> Any:
    """What identifies an input without loading it: its name, or the hash of a local file or folder.

    A part after a colon (`texts.jsonl:body`) is kept beside the hash of the file.
    """
    path = Path(name).expanduser()
    stem, _, rest = name.rpartition(":")
    if not path.exists() and stem and Path(stem).expanduser().is_file():
        return [sha256_file(Path(stem).expanduser()), rest]
    if path.is_file():
        return sha256_file(path)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return {str(p.relative_to(path)): sha256_file(p) for p in files}
    return name
