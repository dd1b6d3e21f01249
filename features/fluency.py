"""Is a continuation still language, and still about its prompt?

The perplexity is that of the unedited model: close all interventions before calling `fluency`.
Text that a model likes is not thereby good text (loops are likely), so repetition is counted beside
it, and `coherence` joins the two.

Drift is 1 - the cosine of TF-IDF vectors of letter 3- to 5-grams within words, weighted by the
default corpus. It tells a text's own beginning from another text's with an AUROC of .93 (865
documents of that corpus that the weights were not made from). Mean residuals of the middle layer do
no better (on 120 documents with SmolLM2-135M .94 against .95), cost two more forward passes, and
would be read from the model that is under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer

from affectlens.data.corpus import load_corpus
from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.features.continuation_nll import continuation_nll
from affectlens.features.incoherence import distinct, pieces, repetition

Array = npt.NDArray[np.float64]

FLUENCY_COLUMNS: dict[str, str] = {
    "n_tokens": "tokens of the continuation",
    "empty": "True if the continuation is empty or blank",
    "nll": "mean negative log-probability of its tokens given the prompt, unedited model (nats); "
    "NaN without tokens",
    "perplexity": "exp(nll)",
    "distinct_1": "different words and marks over all; NaN without any",
    "distinct_2": "different pairs of neighbours over all pairs; NaN below two",
    "repetition": "share of runs of four words and marks that occurred before; 0 below four, NaN "
    "without any",
    "drift": "1 - similarity of the words of continuation and prompt, 0 to 1; NaN if blank",
}
"""Columns of `fluency`, in order."""

_QUANTILE = 0.75
_LEAST_NEW = 0.1
_N_TOPIC_DOCUMENTS = 500


def fluency(
    lm: LanguageModel,
    prompts: Sequence[str],
    texts: Sequence[str],
    *,
    batch_size: int = 16,
    add_special_tokens: bool = True,
) -> pd.DataFrame:
    """Measure continuations under the unedited model.

    Args:
        lm: the model, with no edit open.
        prompts: what each text follows, exactly as the model was given it.
        texts: continuations; empty ones get NaN and are marked in the column `empty`.
        batch_size: texts in one forward pass.
        add_special_tokens: as in generation: False for prompts in a chat template.

    Returns:
        One row a text, in order, with `FLUENCY_COLUMNS`.

    Raises:
        StimulusError: a single string for a list, an empty prompt, text that UTF-8 cannot hold,
            or prompt and text exceed the context.
        ConfigError: unequal numbers of prompts and texts, or a batch size below 1.
    """
    read = continuation_nll(
        lm, prompts, texts, batch_size=batch_size, add_special_tokens=add_special_tokens
    )
    parts = [pieces(t) for t in texts]
    # Perplexity of text that no model would write overflows to infinity, which is what it is.
    with np.errstate(over="ignore"):
        perplexity = np.exp(read.nll)
    return pd.DataFrame(
        {
            "n_tokens": read.n_tokens,
            "empty": np.array([not t.strip() for t in texts], dtype=bool),
            "nll": read.nll,
            "perplexity": perplexity,
            "distinct_1": np.array([distinct(p, 1) for p in parts], dtype=float),
            "distinct_2": np.array([distinct(p, 2) for p in parts], dtype=float),
            "repetition": np.array([repetition(p) if p else np.nan for p in parts], dtype=float),
            "drift": drift(prompts, texts),
        },
        columns=list(FLUENCY_COLUMNS),
    )


def drift(prompts: Sequence[str], texts: Sequence[str]) -> Array:
    """How far each text is from its prompt, float64 [n_texts] in [0, 1]; NaN for a blank text."""
    if not len(texts):
        return np.zeros(0)
    model = _topics()
    a, b = model.transform(prompts), model.transform(texts)
    cosine = np.asarray(a.multiply(b).sum(axis=1), dtype=float).ravel()
    blank = np.array([not t.strip() for t in texts], dtype=bool)
    return np.where(blank, np.nan, np.clip(1.0 - cosine, 0.0, 1.0))


@cache
def _topics() -> TfidfVectorizer:
    documents = load_corpus("default", max_documents=_N_TOPIC_DOCUMENTS).documents
    return TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2).fit(
        [d.text for d in documents]
    )


@dataclass(frozen=True)
class Reference:
    """What the unedited model writes itself, the yardstick of `coherence`.

    Attributes:
        perplexity: upper quartile over its continuations.
        new: 1 - the upper quartile of their repetition, at least 0.1.
        n: continuations behind it, empty ones left out.
        n_empty: continuations left out.
    """

    perplexity: float
    new: float
    n: int
    n_empty: int


def reference_of(table: pd.DataFrame) -> Reference:
    """The yardstick from a table of `fluency` over continuations of the unedited model.

    Raises:
        ConfigError: no continuation with a finite perplexity.
    """
    usable = table[np.isfinite(table["perplexity"]) & ~table["empty"]]
    if usable.empty:
        raise ConfigError(
            f"none of {len(table)} continuations of the unedited model has a finite perplexity; "
            "generate some without edits first"
        )
    return Reference(
        perplexity=float(usable["perplexity"].quantile(_QUANTILE)),
        new=max(1.0 - float(usable["repetition"].quantile(_QUANTILE)), _LEAST_NEW),
        n=len(usable),
        n_empty=len(table) - len(usable),
    )


def coherence(table: pd.DataFrame, reference: Reference) -> Array:
    """One number in [0, 1] a text: as fluent and as free of loops as the model's own text is 1.

        min(1, P / perplexity) * min(1, (1 - repetition) / N)

    with P the upper quartile of perplexity and N = 1 - the upper quartile of repetition over the
    unedited model's own continuations (`reference_of`). It falls with perplexity and with
    repetition and never rises; twice the perplexity of P halves it, a full loop brings it near 0,
    and three quarters of the unedited texts lose nothing by either factor. Empty text gets 0.

    Args:
        table: of `fluency`, at least `empty`, `perplexity` and `repetition`.
        reference: the yardstick.

    Returns:
        float64 [n_texts].
    """
    perplexity = table["perplexity"].to_numpy(dtype=float)
    new = 1.0 - table["repetition"].to_numpy(dtype=float)
    # A perplexity of exactly 0 cannot be; at infinity the quotient is 0.
    fluent = np.minimum(1.0, reference.perplexity / np.maximum(perplexity, np.finfo(float).tiny))
    varied = np.minimum(1.0, new / reference.new)
    product = np.where(table["empty"].to_numpy(dtype=bool), 0.0, fluent * varied)
    return np.nan_to_num(product, nan=0.0)
