"""What a latent's decoder row does to the next-token logits, read straight through the unembedding.

The logits of a decoder-only model are W_U f(x), f being its final norm. Adding s w to the final
residual x, w a decoder row, changes them to first order, at a fixed scale of the norm, by

    s / sigma(x) * W_U (gain * P w),

with the norm's gain, and with P removing the mean over d_model where the norm does (LayerNorm) and
P = 1 where it does not (RMSNorm). Listed is this for s / sigma(x) = 1, minus its mean over the
vocabulary, since the softmax ignores a constant: with the gain and the centring, without the
norm's scale and bias, and before any soft cap. It is the direct path only ("logit lens",
nostalgebraist 2020; of SAE decoder rows Bricken et al. 2023): what later blocks make of w is left
out, so it is the less complete, the earlier the SAE reads.

Whether the words of an emotion are promoted is the Mann-Whitney statistic (1947) of their logits
against those of all other whole-word tokens: AUROC is the probability that a word of the emotion
is promoted more than another word. Its z counts words as independent, which they are not: words of
one meaning lie close in W_U, so nearly any direction moves them together. Decisions therefore rest
on `reference_p`: the share of other latents of the same SAE with at least that AUROC.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from affectlens.data.errors import ConfigError, ModelError
from affectlens.data.models import LanguageModel
from affectlens.features.readout_words import MIN_WORDS
from affectlens.features.word_mass import piece_of

CHUNK = 64
"""Directions put through the unembedding at once."""

_WHOLE_WORD = re.compile(r" [^\W\d_]{2,}")


@dataclass(frozen=True, eq=False)
class Unembedding:
    """The linear map from the final residual to logits.

    Attributes:
        weight: float32 [d_vocab, d_model], the unembedding with the norm's gain multiplied in.
        centred: whether the final norm removes the mean over d_model.
        norm_name: the final norm's name in the model; '' if the model has none.
        texts: [d_vocab] text of each token, '' for rows without one.
        listed: bool [d_vocab]; False on special tokens and on rows without a token.
        whole_words: bool [d_vocab]; tokens that are a blank and at least two letters.
    """

    weight: Tensor
    centred: bool
    norm_name: str
    texts: tuple[str, ...]
    listed: npt.NDArray[np.bool_]
    whole_words: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TokenLogit:
    """A token and how far it is promoted, against the mean over the vocabulary."""

    token: int
    text: str
    logit: float


@dataclass(frozen=True)
class Lens:
    """Tokens that a latent promotes most and suppresses most, strongest first."""

    promoted: tuple[TokenLogit, ...]
    suppressed: tuple[TokenLogit, ...]


@dataclass(frozen=True, eq=False)
class WordScores:
    """How far some words are promoted above other whole words, for several latents.

    Attributes:
        auroc: float64 [n_latents].
        z: float64 [n_latents], Mann-Whitney z with tie correction; 0 where all logits are equal.
        n_words: words of the set that are single tokens.
        n_others: other whole-word tokens.
    """

    auroc: npt.NDArray[np.float64]
    z: npt.NDArray[np.float64]
    n_words: int
    n_others: int


@torch.no_grad()
def unembedding(lm: LanguageModel) -> Unembedding:
    """Read the final norm and the unembedding of a model, tied or not, of any family.

    The norm is the module whose output enters the unembedding. Its gain and centring are measured
    by putting probes through it, so families that store the gain as it is, or less one, agree.

    Raises:
        ModelError: the model does not give its unembedding, or puts more than a norm before it.
    """
    head = lm.model.get_output_embeddings()
    weight = None if head is None else head.weight
    if head is None or not isinstance(weight, Tensor) or weight.ndim != 2:
        raise ModelError(f"{lm.name} does not give its unembedding, so no logit lens can be made")
    if weight.shape[1] != lm.d_model:
        raise ModelError(
            f"the unembedding of {lm.name} reads width {weight.shape[1]}, but its residual has "
            f"{lm.d_model}: it projects in between, which the logit lens does not cover"
        )
    name, norm = _final_norm(lm, head)
    gain, centred = _probe(lm, norm)
    texts, listed = _texts(lm, weight.shape[0])
    words = np.array([bool(_WHOLE_WORD.fullmatch(t)) for t in texts], dtype=bool) & listed
    folded = weight.float().cpu() * gain
    return Unembedding(folded, centred, name, texts, listed, words)


@torch.no_grad()
def lens_logits(out: Unembedding, directions: Tensor) -> Tensor:
    """Effect of directions [n, d_model] on logits, float32 [n, d_vocab], less the mean.

    The mean is over listed tokens; see the module for scale and norm.

    Raises:
        ModelError: the directions have another width.
    """
    if directions.ndim != 2 or directions.shape[1] != out.weight.shape[1]:
        raise ModelError(
            f"directions have shape {tuple(directions.shape)}; this model needs "
            f"[n, {out.weight.shape[1]}]"
        )
    rows = directions.float().cpu()
    if out.centred:
        rows = rows - rows.mean(1, keepdim=True)
    logits = rows @ out.weight.T
    listed = torch.from_numpy(out.listed)
    return logits - logits[:, listed].mean(1, keepdim=True)


def lenses(out: Unembedding, directions: Tensor, n: int) -> list[Lens]:
    """The `n` tokens promoted and suppressed most by each direction; ties by token id.

    Raises:
        ModelError: as `lens_logits`.
    """
    found = []
    tokens = np.flatnonzero(out.listed)
    for start in range(0, len(directions), CHUNK):
        logits = lens_logits(out, directions[start : start + CHUNK]).numpy()[:, tokens]
        for row in logits:
            up, down = (np.argsort(sign * row, kind="stable")[:n] for sign in (-1, 1))
            found.append(
                Lens(
                    *(
                        tuple(
                            TokenLogit(int(tokens[i]), out.texts[tokens[i]], float(row[i]))
                            for i in order
                        )
                        for order in (up, down)
                    )
                )
            )
    return found


def word_token_ids(
    lm: LanguageModel, out: Unembedding, words: Collection[str]
) -> npt.NDArray[np.int64]:
    """Ids of those words that, with a leading blank, are a single whole-word token; sorted."""
    encoded = (lm.tokenizer.encode(" " + word, add_special_tokens=False) for word in words)
    ids = np.unique(np.array([ids[0] for ids in encoded if len(ids) == 1], dtype=np.int64))
    return ids[out.whole_words[ids]]


def word_scores(
    out: Unembedding, directions: Tensor, token_ids: Sequence[npt.NDArray[np.int64]]
) -> list[WordScores | None]:
    """Scores of several sets of words for the same directions [n, d_model], one a set.

    None for a set with fewer than `MIN_WORDS` tokens, or where no other whole word is left.

    Raises:
        ModelError: as `lens_logits`.
        ConfigError: a token that is no whole word of this vocabulary.
    """
    background = np.flatnonzero(out.whole_words)
    for ids in token_ids:
        if not np.isin(ids, background).all():
            raise ConfigError("a token of the words is no whole word of this vocabulary")
    places = [np.searchsorted(background, ids) for ids in token_ids]
    sums = [np.zeros(len(directions)) for _ in token_ids]
    ties = np.zeros(len(directions))
    for start in range(0, len(directions), CHUNK):
        logits = lens_logits(out, directions[start : start + CHUNK]).numpy()[:, background]
        for offset, row in enumerate(logits):
            ranks = rankdata(row)
            _, counts = np.unique(row, return_counts=True)
            ties[start + offset] = float((counts.astype(np.float64) ** 3 - counts).sum())
            for total, place in zip(sums, places, strict=True):
                total[start + offset] = ranks[place].sum()
    return [_scores(s, ties, len(p), len(background)) for s, p in zip(sums, places, strict=True)]


def reference_p(value: float, reference: npt.NDArray[np.float64]) -> float:
    """(1 + reference values at least as large) / (1 + their number), one-sided.

    The add-one form cannot be 0 (Phipson and Smyth 2010).
    """
    return float((1 + np.count_nonzero(reference >= value)) / (1 + len(reference)))


def _scores(
    sums: npt.NDArray[np.float64], ties: npt.NDArray[np.float64], n_words: int, n: int
) -> WordScores | None:
    """Mann-Whitney U of rank sums, U = R - m (m + 1) / 2, its AUROC and its z."""
    n_others = n - n_words
    if n_words < MIN_WORDS or n_others < 1:
        return None
    pairs = n_words * n_others
    u = sums - n_words * (n_words + 1) / 2
    variance = pairs / 12 * (n + 1 - ties / (n * (n - 1)))
    z = np.zeros(len(sums))
    # Where all logits are equal nothing is left of the variance but rounding.
    spread = variance > 1e-9 * pairs
    z[spread] = (u[spread] - pairs / 2) / np.sqrt(variance[spread])
    return WordScores(u / pairs, z, n_words, n_others)


def _final_norm(lm: LanguageModel, head: nn.Module) -> tuple[str, nn.Module | None]:
    """The module whose output enters the unembedding; None if that is a decoder block."""
    entered: list[Tensor] = []
    outputs: list[tuple[str, nn.Module, Tensor]] = []

    def keep(name: str) -> object:
        def hook(module: nn.Module, _: object, output: object) -> None:
            if isinstance(output, Tensor):
                outputs.append((name, module, output))

        return hook

    def enter(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        entered.append(inputs[0])

    handles = [head.register_forward_pre_hook(enter)]
    for name, module in lm.model.named_modules():
        if module is not head and name:
            handles.append(module.register_forward_hook(keep(name)))
    try:
        batch = lm.pad([[lm.pad_id, lm.pad_id]])
        lm.model(**lm.model_inputs(batch), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if not entered:
        raise ModelError(f"the forward pass of {lm.name} does not run its output embedding")
    # Innermost modules finish first, so the first match is the norm and not what holds it.
    for name, module, output in outputs:
        if output.data_ptr() == entered[0].data_ptr() and output.shape == entered[0].shape:
            inside = any(module is part for block in lm.blocks for part in block.modules())
            return ("", None) if inside else (name, module)
    raise ModelError(
        f"{lm.name} computes something between its last module and its unembedding that is no "
        "module of its own; the logit lens does not cover it"
    )


def _probe(lm: LanguageModel, norm: nn.Module | None) -> tuple[Tensor, bool]:
    """Gain [d_model] of a norm and whether it centres, from its odd part at two probes.

    At x = (1, -1, 1, ...), of mean 0 and scale 1, the odd part (f(x) - f(-x)) / 2 is gain * x; at
    x = (1, 1, ...) it is the gain again for an RMSNorm and 0 for a LayerNorm.
    """
    if norm is None:
        return torch.ones(lm.d_model), False
    if lm.d_model % 2:
        raise ModelError(f"{lm.name} has an odd width, {lm.d_model}, which is not supported")
    ones = torch.ones(1, 1, lm.d_model, device=lm.device, dtype=lm.dtype)
    signs = ones.clone()
    signs[..., 1::2] = -1

    def odd(x: Tensor) -> Tensor:
        return ((norm(x).float() - norm(-x).float()) / 2).flatten().cpu()

    gain = odd(signs) * signs.float().flatten().cpu()
    return gain, bool(odd(ones).norm() < 0.5 * gain.norm())


def _texts(lm: LanguageModel, d_vocab: int) -> tuple[tuple[str, ...], npt.NDArray[np.bool_]]:
    """Text of every row of the unembedding, and which rows are ordinary tokens."""
    special = set(lm.tokenizer.all_special_ids)
    known = min(d_vocab, len(lm.tokenizer))
    piece = piece_of(lm.tokenizer)
    texts = tuple(piece(token) if token < known else "" for token in range(d_vocab))
    listed = np.array([t < known and t not in special for t in range(d_vocab)], dtype=bool)
    return texts, listed
