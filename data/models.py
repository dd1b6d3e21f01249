"""Language models: one object holds a Hugging Face causal model, its tokenizer and its origin."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from affectlens.data import fingerprints
from affectlens.data.addresses import find_blocks
from affectlens.data.errors import ModelError, StimulusError
from affectlens.data.model_views import ModelViews
from affectlens.data.token_batches import Batch, Side, pad_rows, real_positions

__all__ = [
    "DEFAULT_MODEL",
    "Batch",
    "LanguageModel",
    "ModelSource",
    "load_model",
    "pad_rows",
    "real_positions",
]

DEFAULT_MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True)
class ModelSource:
    """Where a model came from.

    Attributes:
        kind: "default", "folder", "gguf", "hub", "tiny", or "random" for a copy with new weights.
        path: folder the weights were read from; None for a model made in memory.
        revision: commit of a hub model, package version of the default, seed of a tiny or random
            one.
        sha256: SHA-256 of the single source file (the GGUF); None if there are several or none.
    """

    kind: Literal["default", "folder", "gguf", "hub", "tiny", "random"]
    path: str | None
    revision: str | None
    sha256: str | None

    def as_dict(self) -> dict[str, str | None]:
        """The fields as a JSON-able dictionary."""
        return asdict(self)


@dataclass(eq=False, repr=False)
class LanguageModel(ModelViews):
    """A decoder-only language model.

    Attributes:
        name: the name it was loaded by.
        model: the Hugging Face module, in evaluation mode, without gradients.
        tokenizer: its tokenizer.
        source: where it came from.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: ModelSource
    # What `resume_from` holds while it is open; hooks read it to refuse edits that would be lost.
    resumed_layer: int | None = field(default=None, init=False, repr=False)

    @property
    def _embedding(self) -> Tensor:
        weight = self.model.get_input_embeddings().weight
        if not isinstance(weight, Tensor):
            raise ModelError(f"{self.name} has no token embedding")
        return weight

    @property
    def device(self) -> torch.device:
        """Device of the embedding weights."""
        return self._embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the embedding weights."""
        return self._embedding.dtype

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks in order.

        Raises:
            ModelError: the model has no single list of blocks.
        """
        return find_blocks(self.model)

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def d_vocab(self) -> int:
        """Number of logits (embedding rows), which can exceed the tokenizer's vocabulary."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def context_length(self) -> int:
        """Longest sequence, in tokens, that the model was built for."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        # Models without a limit of their own (ALiBi) report it through the tokenizer, if at all;
        # the tokenizer's "no limit" is a number near 1e30.
        if limit is None:
            declared = self.tokenizer.model_max_length
            limit = declared if declared < 2**31 else 2048
        return int(limit)

    @property
    def pad_id(self) -> int:
        """The id written on padding: the tokenizer's, else its end token, else 0."""
        for candidate in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if candidate is not None:
                return int(candidate)
        return 0

    @property
    def stop_ids(self) -> frozenset[int]:
        """Token ids that end a generated text."""
        config = getattr(self.model, "generation_config", None)
        declared = getattr(config, "eos_token_id", None)
        if declared is None:
            declared = self.tokenizer.eos_token_id
        values = declared if isinstance(declared, list | tuple) else [declared]
        return frozenset(int(value) for value in values if value is not None)

    @cached_property
    def accepted_arguments(self) -> frozenset[str]:
        """Names of the arguments of the model's forward method."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    def model_inputs(self, batch: Batch) -> dict[str, Any]:
        """Keyword arguments for `self.model` that mean `batch`, padding and positions included."""
        inputs: dict[str, Any] = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask.long(),
        }
        # Models without positions of their own (ALiBi) work them out from the mask.
        if "position_ids" in self.accepted_arguments:
            inputs["position_ids"] = batch.positions
        return inputs

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 that names the weights and the configuration.

        It does not depend on device, number format or library version. Read from the files the
        model was loaded from, from the GGUF's hash, or from the state dict of a tiny model; large
        folders are hashed on first use.
        """
        return fingerprints.model_fingerprint(self.model, self.source)

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Hex SHA-256 over the tokenizer's definition, special tokens and chat template."""
        return fingerprints.tokenizer_fingerprint(self.tokenizer)

    def encode(
        self, texts: Sequence[str], *, side: Side = "right", add_special_tokens: bool = True
    ) -> Batch:
        """Turn texts into one padded batch on the model's device. Nothing is ever cut.

        Args:
            texts: at least one text.
            side: side of the padding.
            add_special_tokens: let the tokenizer add its start token, if it has one.

        Raises:
            StimulusError: no text, an empty text, one with characters that UTF-8 cannot hold, or
                one longer than the context (the message says how many tokens it has).
        """
        rows = [
            self.token_ids(text, add_special_tokens=add_special_tokens, label=f"text {index}")
            for index, text in enumerate(_as_list(texts))
        ]
        return self.pad(rows, side=side)

    def token_ids(
        self, text: str, *, add_special_tokens: bool = True, label: str = "the text"
    ) -> list[int]:
        """Token ids of one text.

        Raises:
            StimulusError: see `encode`; `label` names the text in the message.
        """
        if not isinstance(text, str) or not text.strip():
            raise StimulusError(f"{label} is empty or not a text: {text!r}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise StimulusError(
                f"{label} holds a lone surrogate at character {error.start}, which is not valid "
                "text; repair the file it came from"
            ) from error
        ids: list[int] = self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        if len(ids) > self.context_length:
            raise StimulusError(
                f"{label} has {len(ids)} tokens, but the context of {self.name} is "
                f"{self.context_length}; shorten or split it (it begins {text[:60]!r})"
            )
        return ids

    def pad(self, rows: Sequence[Sequence[int]], *, side: Side = "right") -> Batch:
        """Put rows of token ids into one batch on the model's device.

        Raises:
            StimulusError: no rows or an empty row.
        """
        return pad_rows(rows, self.pad_id, side=side, device=self.device)

    def forward_logits(
        self, batch: Batch, *, last_only: bool = True, gradients: bool = False
    ) -> Tensor:
        """Next-token logits in float32.

        Args:
            batch: tokens, padded on either side.
            last_only: only at the last real token of each row.
            gradients: keep the graph, for gradients of what an open edit writes.

        Returns:
            float [batch, d_vocab], or [batch, seq, d_vocab] with `last_only=False`.
        """
        batch = batch.to(self.device)
        with torch.set_grad_enabled(gradients):
            inputs = self.model_inputs(batch)
            if not last_only:
                everywhere: Tensor = self.model(**inputs, use_cache=False).logits
                return everywhere.float()
            # The head is the widest matrix of a small model: run it on the columns needed only.
            columns, inverse = torch.unique(batch.last_index, return_inverse=True)
            selects = "logits_to_keep" in self.accepted_arguments
            if selects:
                inputs["logits_to_keep"] = columns
            kept: Tensor = self.model(**inputs, use_cache=False).logits
            kept = kept if selects else kept[:, columns]
            rows = torch.arange(len(batch), device=kept.device)
            return kept[rows, inverse].float()

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str to the checker
        self,
        prompts: str,
        *,
        max_new_tokens: int = ...,
        temperature: float = ...,
        top_p: float = ...,
        seed: int = ...,
        chat: bool = ...,
        streams: Sequence[int] | None = ...,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = ...,
        temperature: float = ...,
        top_p: float = ...,
        seed: int = ...,
        chat: bool = ...,
        streams: Sequence[int] | None = ...,
    ) -> list[str]: ...

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        max_new_tokens: int = 60,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        chat: bool = False,
        streams: Sequence[int] | None = None,
    ) -> str | list[str]:
        """Continue prompts; only the continuation is returned.

        Args:
            prompts: one prompt (gives one text) or several (gives a list, one batch).
            max_new_tokens: longest continuation.
            temperature: 0 takes the likeliest token; else tokens are sampled.
            top_p: sample from the smallest set of tokens with this probability (Holtzman 2020).
            seed: seed of the sampling. Row i of a batch draws from a stream of its own, made of
                the seed and i, so it does not depend on the other rows; no global state is touched.
            chat: wrap each prompt as a user's message in the model's chat template.
            streams: number of the random stream of each prompt instead of its place; prompts with
                one number draw the same.

        Raises:
            StimulusError: an empty prompt, or prompt and continuation exceed the context.
            ModelError: bad sampling settings, or no chat template.
        """
        from affectlens.data import generation

        single = isinstance(prompts, str)
        settings = generation.Sampling(max_new_tokens, temperature, top_p, seed)
        listed = [prompts] if isinstance(prompts, str) else _as_list(prompts)
        if chat:
            listed = [generation.chat_prompt(self, prompt) for prompt in listed]
        rows = [
            self.token_ids(prompt, add_special_tokens=not chat, label=f"prompt {index}")
            for index, prompt in enumerate(listed)
        ]
        texts = generation.continuations(self, rows, settings, streams=streams)
        return texts[0] if single else texts


def load_model(
    name: str | Path = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    cache_dir: str | Path | None = None,
) -> LanguageModel:
    """Load a language model.

    Args:
        name: "smollm2-135m-instruct" (fetched once, then cached), a local folder in the Hugging
            Face layout, a .gguf file, a Hugging Face hub id such as "openai-community/gpt2", or
            "tiny:llama|gpt2|gpt_neox|gemma2" for a random one. An existing path wins over a hub id.
        revision: branch, tag or commit of a hub model; it is resolved to a commit, which
            `source.revision` records. Give a full commit to pin it.
        device: "cpu", "cuda", "cuda:1", "mps".
        dtype: "float32", "bfloat16" or "float16".
        cache_dir: where the converted default model and GGUF files are kept; by default
            `$AFFECTLENS_CACHE`, else the user's cache folder. Hub models use the hub's own cache.

    Raises:
        ModelError: not found, not fetchable (the message says what to do offline), damaged, or
            of a kind that does not fit.
    """
    from affectlens.data import model_loading

    return model_loading.load(
        str(name), revision=revision, device=device, dtype=dtype, cache_dir=cache_dir
    )


def _as_list(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise StimulusError("a list of texts is needed, got a single string; write [text]")
    return list(texts)
