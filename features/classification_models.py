"""Text-classification models of the Hugging Face hub or of a folder, and what their labels mean.

Weights are read from safetensors only, and no code of a model's repository is run. Labels are taken
for the eight emotions by `taxonomy.map_label`; what fits none is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from affectlens.data.errors import ModelError, StimulusError
from affectlens.data.model_loading import fetch_hub, quiet
from affectlens.data.taxonomy import NEUTRAL, SCHEMES, TAXONOMY, map_label


@dataclass(frozen=True, eq=False)
class ClassificationModel:
    """A text classifier.

    Attributes:
        name: what it was loaded by, with the commit of a hub model.
        model: the Hugging Face module, in evaluation mode.
        tokenizer: its tokenizer.
        labels: label of each output.
        independent: the outputs are separate yes-or-no answers (sigmoid), not shares (softmax).
    """

    name: str
    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    independent: bool

    @property
    def context_length(self) -> int:
        """Most tokens of a text."""
        limit = int(self.tokenizer.model_max_length)
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is not None:
            # RoBERTa and its kin keep the first positions, up to the padding id, for themselves.
            kept = (self.model.config.pad_token_id or 0) + 1
            offset = kept if "roberta" in str(self.model.config.model_type) else 0
            limit = min(limit, int(positions) - offset)
        return limit

    def n_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, before anything is cut."""
        return [len(self.tokenizer(text)["input_ids"]) for text in texts]

    @torch.inference_mode()
    def probabilities(
        self, texts: Sequence[str], batch_size: int = 16, *, cut: bool = False
    ) -> npt.NDArray[np.float64]:
        """Probability of every label: [n_texts, n_labels].

        Args:
            texts: the texts.
            batch_size: texts in one forward pass.
            cut: read the beginning of a text that is longer than the context.

        Raises:
            StimulusError: a text is longer than the context, without `cut`.
        """
        limit = self.context_length
        rows = [
            self.tokenizer(text, truncation=cut, max_length=limit if cut else None)["input_ids"]
            for text in texts
        ]
        for text, ids in zip(texts, rows, strict=True):
            if len(ids) > limit:
                raise StimulusError(
                    f"a text has {len(ids)} tokens, but {self.name} reads {limit}; take another "
                    f"classifier or shorten it (it begins {text[:60]!r})"
                )
        device = next(self.model.parameters()).device
        out = np.zeros((len(rows), len(self.labels)))
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            batch = self.tokenizer.pad({"input_ids": rows[part]}, return_tensors="pt")
            logits = self.model(
                input_ids=batch["input_ids"].to(device),
                attention_mask=batch["attention_mask"].to(device),
            ).logits.double()
            shares = logits.sigmoid() if self.independent else logits.softmax(-1)
            out[part] = shares.cpu().numpy()
        return out


def read_classification_model(name: str, *, device: str = "cpu") -> ClassificationModel:
    """Read a classifier from a local folder or the Hugging Face hub.

    Args:
        name: an existing folder, else a hub id ('ID' or 'ID@REVISION').
        device: torch device.

    Raises:
        ModelError: not found, not fetchable, no safetensors, unreadable, or weights missing.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        folder, shown = path, name
    elif path.exists() or name.startswith((".", "/", "~")):
        raise ModelError(
            f"no classifier folder {name!r}; give a folder with config.json and *.safetensors, or "
            "a hub id"
        )
    else:
        hub, _, revision = name.partition("@")
        folder, commit = fetch_hub(hub, revision or None)
        shown = f"{hub}@{commit}"
    model, tokenizer = _read(folder)
    model.to(torch.device(device)).eval()
    return ClassificationModel(
        name=shown,
        model=model,
        tokenizer=tokenizer,
        labels=tuple(str(model.config.id2label[i]) for i in range(model.config.num_labels)),
        independent=model.config.problem_type == "multi_label_classification",
    )


def emotion_of(label: str) -> str | None:
    """The emotion a classifier's label stands for (`taxonomy.map_label`), or None.

    The first scheme that has the label decides; a label of no scheme may be a readout word.
    """
    key = label.strip().casefold()
    for scheme in SCHEMES:
        try:
            found = map_label(key, scheme, "plutchik")
        except StimulusError:
            continue
        return None if found == NEUTRAL else found
    return next((e.name for e in TAXONOMY.values() if key in e.words), None)


def _read(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} holds no *.safetensors file; other weight formats can run code when they "
            "are read and are refused. Convert it with model.save_pretrained(folder), or give "
            "ID@REVISION if another revision holds safetensors"
        )
    loader: Any = AutoModelForSequenceClassification
    try:
        with quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model, info = loader.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except Exception as error:  # the tokenizers library raises bare Exceptions
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the classifier in {folder} could not be read: {reason}. The files are damaged or "
            "incomplete, or it is no text-classification model"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{len(missing)} weights are missing from {folder} (first: {missing[0]}) and would be "
            "random: it is no trained text-classification model"
        )
    return model, tokenizer
