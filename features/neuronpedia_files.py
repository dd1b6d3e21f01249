"""Named latents in the form of Neuronpedia's bulk exports, which its admin panel imports.

The form is that of docs.neuronpedia.org/api-and-data/exports; the fields of a line are the columns
of its tables (`Neuron` and `Activation` in its public schema), the same that its API returns:

    release.jsonl  model.jsonl  sourceset.jsonl  source.jsonl     one line each
    features/batch-0.jsonl.gz      one line a latent
    activations/batch-0.jsonl.gz   one line a text context, by quantile group (binMin, binMax)

Only the named latents are written, not all of the SAE. The histogram of activations has one bar for
each group of contexts, all of equal width; histograms of logits, and what else is not measured, are
empty lists. Tokens are texts of their own: a character split over two tokens shows as two
replacement characters. `creatorId` is the account an instance imports under: the default of
Neuronpedia's own tools, to be replaced where another is wanted. `createdAt` is that of the run, so
the same run gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectlens.data.addresses import Address
from affectlens.data.errors import ConfigError
from affectlens.features.naming import FeatureName, FeatureNames

FILES = ("release.jsonl", "model.jsonl", "sourceset.jsonl", "source.jsonl")
FOLDERS = ("features", "activations")
CREATOR = "clkht01d40000jv08hvalcvly"
"""DEFAULT_CREATOR_ID of Neuronpedia's conversion tools."""

_NOT_MEASURED = (
    "neuron_alignment_indices",
    "neuron_alignment_values",
    "neuron_alignment_l1",
    "correlated_neurons_indices",
    "correlated_neurons_pearson",
    "correlated_neurons_l1",
    "correlated_features_indices",
    "correlated_features_pearson",
    "correlated_features_l1",
    "decoder_weights_dist",
    "logits_hist_data_bar_heights",
    "logits_hist_data_bar_values",
    "vector",
)
_UNSAFE = re.compile(r"[^a-z0-9.]+")


@dataclass(frozen=True)
class NeuronpediaSource:
    """Under which names the latents go.

    Attributes:
        model_id: the model, such as "gpt2-small".
        source_id: layer and set, such as "8-res-jb".
        release: name of the release.
        created: ISO time of the lines.
        hub_repository: where the weights lie on the hub; '' if nowhere.
    """

    model_id: str
    source_id: str
    release: str
    created: str
    hub_repository: str = ""

    @property
    def set_name(self) -> str:
        """The source without its layer, such as "res-jb"."""
        return self.source_id.partition("-")[2] or self.source_id


def source_of(
    names: FeatureNames, *, identity: str | None, release: str, created: str
) -> NeuronpediaSource:
    """The names for a run: those of a public SAE (`identity`, "model/source"), else made up.

    Raises:
        ConfigError: `identity` is not of that form, or a name has no letter or digit.
    """
    if identity is not None:
        model, slash, source = identity.partition("/")
        if not slash or not model or not source or "/" in source:
            raise ConfigError(f"Neuronpedia id {identity!r} is not of the form model/source")
        return NeuronpediaSource(model, source, slug(release), created)
    place = Address.parse(names.hook_name)
    model = slug(names.model_name.rsplit("/", 1)[-1])
    source = f"{place.layer}-{slug(release)}"
    return NeuronpediaSource(model, source, slug(release), created)


def slug(text: str) -> str:
    """`text` in lower-case letters, digits, points and single hyphens.

    Raises:
        ConfigError: nothing is left.
    """
    found = _UNSAFE.sub("-", text.lower()).strip("-.")[:60]
    if not found:
        raise ConfigError(f"{text!r} has no letter or digit to make a name of")
    return found


def write_feature_files(names: FeatureNames, source: NeuronpediaSource, folder: Path) -> int:
    """Write the files into `folder`, which exists; not atomic: give a staged folder.

    Returns:
        Number of latents.
    """
    for name, lines in (*_heads(source), *_batches(names, source)):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        # Escapes, not UTF-8: half of a surrogate pair has no other form.
        raw = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode("ascii")
        # A fixed time in the gzip header, so that equal content gives equal bytes.
        path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return len(names.names)


def _batches(
    names: FeatureNames, source: NeuronpediaSource
) -> Iterator[tuple[str, Iterable[Mapping[str, Any]]]]:
    yield "features/batch-0.jsonl.gz", [_feature(n, source, names.hook_name) for n in names.names]
    yield (
        "activations/batch-0.jsonl.gz",
        [line for name in names.names for line in _activations(name, source)],
    )


def _heads(source: NeuronpediaSource) -> Iterator[tuple[str, Iterable[Mapping[str, Any]]]]:
    made = {"creatorId": CREATOR, "createdAt": source.created}
    title = f"AffectLens {source.release}"
    yield (
        "release.jsonl",
        [
            {
                "name": source.release,
                "description": title,
                "descriptionShort": title,
                "urls": [],
                "creatorName": "",
                "creatorNameShort": "",
                **made,
            }
        ],
    )
    model = source.model_id
    yield (
        "model.jsonl",
        [
            {
                "id": model,
                "displayName": model,
                "displayNameShort": model,
                "instruct": "instruct" in model or model.endswith("-it"),
                "updatedAt": source.created,
                **made,
            }
        ],
    )
    yield (
        "sourceset.jsonl",
        [
            {
                "modelId": model,
                "name": source.set_name,
                "description": title,
                "releaseName": source.release,
                "visibility": "UNLISTED",
                "creatorName": "",
                **made,
            }
        ],
    )
    yield (
        "source.jsonl",
        [
            {
                "id": source.source_id,
                "modelId": model,
                "setName": source.set_name,
                "visibility": "UNLISTED",
                "dataset": "",
                "num_prompts": None,
                "num_tokens_in_prompt": None,
                "hfRepoId": source.hub_repository or None,
                "hfFolderId": None,
                "creatorId": CREATOR,
            }
        ],
    )


def _place(name: FeatureName, source: NeuronpediaSource) -> dict[str, Any]:
    return {
        "modelId": source.model_id,
        "layer": source.source_id,
        "index": str(name.feature),
        "creatorId": CREATOR,
        "createdAt": source.created,
    }


def _feature(name: FeatureName, source: NeuronpediaSource, hook: str) -> dict[str, Any]:
    groups = name.groups[::-1]
    return {
        **_place(name, source),
        "sourceSetName": source.set_name,
        "hookName": hook,
        "hasVector": False,
        "vectorLabel": None,
        "maxActApprox": name.max_active,
        "frac_nonzero": name.firing_rate,
        "freq_hist_data_bar_values": [(g.low + g.high) / 2 for g in groups],
        "freq_hist_data_bar_heights": [g.n_tokens for g in groups],
        "pos_str": [t.text for t in name.lens.promoted],
        "pos_values": [t.logit for t in name.lens.promoted],
        "neg_str": [t.text for t in name.lens.suppressed],
        "neg_values": [t.logit for t in name.lens.suppressed],
        **{key: [] for key in _NOT_MEASURED},
        "topkCosSimIndices": [n.feature for n in name.nearest_decoder],
        "topkCosSimValues": [n.value for n in name.nearest_decoder],
    }


def _activations(name: FeatureName, source: NeuronpediaSource) -> Iterator[dict[str, Any]]:
    for group in name.groups:
        for context in group.contexts:
            where = f"{source.source_id}/{name.feature}/{context.doc_id}/{context.position}"
            yield {
                "id": "c" + hashlib.sha256(where.encode()).hexdigest()[:24],
                **_place(name, source),
                "tokens": list(context.tokens),
                "values": list(context.activations),
                "maxValue": max(context.activations),
                "maxValueTokenIndex": context.peak,
                "minValue": min(context.activations),
                "binMin": group.low,
                "binMax": group.high,
                "binContains": group.share,
                "qualifyingTokenIndex": context.peak,
                "dfaValues": [],
                "dfaTargetIndex": None,
                "dfaMaxValue": None,
                "lossValues": [],
                "logitContributions": None,
                "dataIndex": None,
                "dataSource": None,
            }
