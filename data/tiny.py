"""Tiny random language models with a byte-level tokenizer, for tests and dry runs.

They have the real module structure of their family, run in milliseconds and need no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from affectlens.data.errors import ModelError
from affectlens.data.models import LanguageModel, ModelSource

FAMILIES = ("llama", "gpt2", "gpt_neox", "gemma2")
CONTEXT_LENGTH = 2048
N_HEADS = 4
_PAD, _EOS = 256, 257
_N_VOCAB = 258
# Wide enough that attention and MLP move the residual visibly at this width.
_INIT_STD = 0.2


def tiny_model(
    family: str,
    seed: int = 0,
    n_layers: int = 4,
    d_model: int = 32,
    words: Sequence[str] = (),
) -> LanguageModel:
    """Build a random model of `family`; equal arguments give equal weights.

    Args:
        family: "llama", "gpt2", "gpt_neox" or "gemma2".
        seed: seed of the weights; the global random state is left as it was.
        n_layers: number of blocks.
        d_model: residual width, a multiple of 8.
        words: words that, with a leading space, get a token of their own (so that readouts of
            emotion words work on a dry run).

    Raises:
        ModelError: an unknown family or impossible size.
    """
    if family not in _BUILDERS:
        raise ModelError(f"unknown tiny family {family!r}; known: {', '.join(FAMILIES)}")
    if n_layers < 1 or d_model < 8 or d_model % (2 * N_HEADS):
        raise ModelError(
            f"a tiny model needs n_layers >= 1 and d_model a multiple of {2 * N_HEADS}, "
            f"got n_layers={n_layers}, d_model={d_model}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _BUILDERS[family](n_layers, d_model, _N_VOCAB + len(words))
    model.eval().requires_grad_(requires_grad=False)
    name = f"tiny:{family}"
    source = ModelSource(kind="tiny", path=None, revision=f"seed{seed}", sha256=None)
    return LanguageModel(name=name, model=model, tokenizer=byte_tokenizer(words), source=source)


def byte_tokenizer(words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """One token for each byte of the UTF-8 text, plus <pad> (256), <eos> (257) and `words`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken("<pad>", special=True), AddedToken("<eos>", special=True)]
    )
    tokenizer.add_tokens([AddedToken(f" {w}", normalized=False) for w in words])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
    )


def _llama(n_layers: int, d_model: int, d_vocab: int) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=d_vocab,
            hidden_size=d_model,
            intermediate_size=2 * d_model,
            num_hidden_layers=n_layers,
            num_attention_heads=N_HEADS,
            num_key_value_heads=N_HEADS // 2,
            max_position_embeddings=CONTEXT_LENGTH,
            initializer_range=_INIT_STD,
            bos_token_id=None,
            eos_token_id=_EOS,
            pad_token_id=_PAD,
        )
    )


def _gpt2(n_layers: int, d_model: int, d_vocab: int) -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=d_vocab,
            n_embd=d_model,
            n_layer=n_layers,
            n_head=N_HEADS,
            n_positions=CONTEXT_LENGTH,
            initializer_range=_INIT_STD,
            bos_token_id=None,
            eos_token_id=_EOS,
            pad_token_id=_PAD,
        )
    )


def _gpt_neox(n_layers: int, d_model: int, d_vocab: int) -> PreTrainedModel:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=d_vocab,
            hidden_size=d_model,
            intermediate_size=2 * d_model,
            num_hidden_layers=n_layers,
            num_attention_heads=N_HEADS,
            max_position_embeddings=CONTEXT_LENGTH,
            initializer_range=_INIT_STD,
            bos_token_id=None,
            eos_token_id=_EOS,
            pad_token_id=_PAD,
        )
    )


def _gemma2(n_layers: int, d_model: int, d_vocab: int) -> PreTrainedModel:
    return Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=d_vocab,
            hidden_size=d_model,
            intermediate_size=2 * d_model,
            num_hidden_layers=n_layers,
            num_attention_heads=N_HEADS,
            num_key_value_heads=N_HEADS // 2,
            head_dim=d_model // N_HEADS,
            query_pre_attn_scalar=d_model // N_HEADS,
            sliding_window=64,
            max_position_embeddings=CONTEXT_LENGTH,
            initializer_range=_INIT_STD,
            bos_token_id=None,
            eos_token_id=_EOS,
            pad_token_id=_PAD,
        )
    )


_BUILDERS: dict[str, Callable[[int, int, int], PreTrainedModel]] = {
    "llama": _llama,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "gemma2": _gemma2,
}
