"""The readout against sums by hand, brute force, and what must not change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from affectlens.data.errors import ConfigError, StimulusError
from affectlens.data.hooks import edit
from affectlens.data.models import LanguageModel
from affectlens.data.tiny import FAMILIES, tiny_model
from affectlens.features.readout_words import emotion_words
from affectlens.features.readouts import Readout, build_readout, readout_name_of, readout_of

WORDS = {
    "joy": ("glad", "merry", "happy", "elated"),
    "fear": ("afraid", "scared", "panic"),
    "calm": ("quiet", "still", "even"),
}
SINGLE = tuple(word for words in WORDS.values() for word in words)
TEMPLATES = ("\nIt felt:", " All in all -")
TEXTS = ("She read the letter twice.", "The boat left.", "He folded the map and went on, late.")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_model("llama", words=SINGLE)


@pytest.fixture(scope="module")
def bytes_lm() -> LanguageModel:
    """Every word is several tokens."""
    return tiny_model("gpt2", seed=3)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def likelihood(lm: LanguageModel, text: str, template: str, word: str) -> float:
    """Log-probability of a word after text and template, from all logits of the whole text."""
    head = lm.tokenizer(text + template)["input_ids"]
    whole = lm.tokenizer(f"{text}{template} {word}")["input_ids"]
    logits = lm.forward_logits(lm.pad([whole]), last_only=False)[0].double()
    logp = torch.log_softmax(logits, dim=-1)
    return sum(float(logp[k - 1, whole[k]]) for k in range(len(head), len(whole)))


def brute_force(
    lm: LanguageModel,
    text: str,
    words: Mapping[str, Sequence[str]],
    content_free: Sequence[str] = (),
) -> npt.NDArray[np.float64]:
    """The readout of one text by its definition, word by word."""
    rows = []
    for template in TEMPLATES:
        score = {}
        for group, members in words.items():
            p = np.array([np.exp(likelihood(lm, text, template, w)) for w in members])
            if content_free:
                after = [
                    [np.exp(likelihood(lm, c, template, w)) for w in members] for c in content_free
                ]
                p = p / np.mean(after, axis=0) / len(members)
            score[group] = float(np.log(p.sum()))
        emotions = [g for g in words if g != "calm"]
        row = [
            score[e] - np.mean([score[other] for other in emotions if other != e]) for e in emotions
        ]
        together = np.exp([score[e] for e in emotions])
        pooled = together.mean() if content_free else together.sum()
        rows.append([*row, np.log(pooled) - score["calm"]])
    return np.mean(rows, axis=0)


@pytest.mark.parametrize("calibrate", [False, True])
def test_single_tokens_against_brute_force(lm: LanguageModel, calibrate: bool) -> None:
    free = ("N/A", "...")
    readout = build_readout(lm, WORDS, TEMPLATES, calibrate=calibrate, content_free=free)
    assert readout.names == ("joy", "fear", "all")
    assert readout.n_suffixes == 2
    assert len(readout.tokens) == 10
    want = [brute_force(lm, text, WORDS, free if calibrate else ()) for text in TEXTS]
    np.testing.assert_allclose(readout_of(lm, TEXTS, readout), want, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_several_tokens_against_brute_force(family: str) -> None:
    lm = tiny_model(family, seed=1)
    words = {"joy": ("gay", "glad", "élan"), "fear": ("awe", "fret", "fa"), "calm": ("o", "h", "e")}
    for calibrate in (False, True):
        readout = build_readout(
            lm, words, TEMPLATES, split="score", calibrate=calibrate, content_free=("...",)
        )
        want = [brute_force(lm, text, words, ("...",) if calibrate else ()) for text in TEXTS]
        np.testing.assert_allclose(readout_of(lm, TEXTS, readout), want, atol=2e-5)


def test_words_share_the_rows_of_equal_prefixes(bytes_lm: LanguageModel) -> None:
    words = {"a": ("xay", "xaz", "xb"), "b": ("q", "r", "s")}
    readout = build_readout(bytes_lm, words, (" So",), split="score", calibrate=False)
    # After the template: " ", " x", " xa" and nothing.
    assert readout.n_suffixes == 4
    rows = readout.rows(bytes_lm, TEXTS)
    assert rows.n_suffixes == 4
    assert len(rows.rows) == 4 * len(TEXTS)
    written = bytes_lm.tokenizer.batch_decode([list(r) for r in rows.rows[:4]])
    assert set(written) == {TEXTS[0] + " So" + tail for tail in ("", " ", " x", " xa")}
    assert set(bytes_lm.tokenizer.decode(readout.tokens)) == set(" xayzbqrs")


def test_numbers_by_hand() -> None:
    words = {"a": ("k", "l", "m"), "b": ("n", "o", "p"), "calm": ("q", "r", "s")}
    lm = tiny_model("llama", words=tuple(w for group in words.values() for w in group))
    plain = build_readout(lm, words, (" So",), calibrate=False)
    p = torch.tensor([0.1, 0.2, 0.1, 0.05, 0.1, 0.05, 0.02, 0.02, 0.06], dtype=torch.float64)
    want = [np.log(0.4 / 0.2), np.log(0.2 / 0.4), np.log(0.6 / 0.1)]
    assert plain.scores(p.log()[None, None])[0].tolist() == pytest.approx(want)
    free = torch.tensor([0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.04, 0.01, 0.02], dtype=torch.float64)
    question = replace(plain.questions[0], base=free.log())
    calibrated = replace(plain, questions=(question,), calibrated=True)
    a, b, calm = (0.5 + 2 + 1) / 3, (0.5 + 1 + 0.5) / 3, (0.5 + 2 + 3) / 3
    want = [np.log(a / b), np.log(b / a), np.log((a + b) / 2 / calm)]
    assert calibrated.scores(p.log()[None, None])[0].tolist() == pytest.approx(want)


def test_a_content_free_text_reads_nothing(lm: LanguageModel) -> None:
    readout = build_readout(lm, WORDS, TEMPLATES, content_free=("N/A",), scales=True)
    read = readout_of(lm, ["N/A"], readout)[0]
    np.testing.assert_allclose(read[:3], 0, atol=1e-6)
    for value, scale in zip(read[3:], readout.scales, strict=True):
        assert value == pytest.approx(float(scale.values.mean()), abs=1e-6)


def test_templates_are_averaged(lm: LanguageModel) -> None:
    both = readout_of(lm, TEXTS, build_readout(lm, WORDS, TEMPLATES))
    each = [readout_of(lm, TEXTS, build_readout(lm, WORDS, (t,))) for t in TEMPLATES]
    np.testing.assert_allclose(both, np.mean(each, axis=0), atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 0.01


def test_neither_batches_nor_padding_matter(bytes_lm: LanguageModel) -> None:
    words = {"a": ("xa", "xb", "c"), "b": ("q", "r", "s"), "calm": ("d", "e", "f")}
    readout = build_readout(bytes_lm, words, TEMPLATES, split="score")
    texts = [*TEXTS, "A " * 200]
    whole = readout_of(bytes_lm, texts, readout, batch_size=1000)
    one = [readout_of(bytes_lm, [text], readout, batch_size=1)[0] for text in texts]
    np.testing.assert_allclose(whole, one, atol=1e-5)
    np.testing.assert_allclose(
        readout_of(bytes_lm, texts[::-1], readout, batch_size=3)[::-1], whole, atol=1e-5
    )


def test_a_constant_on_all_logits_changes_nothing(lm: LanguageModel) -> None:
    readout = build_readout(lm, WORDS, TEMPLATES, scales=True)
    logits = normal(2 * readout.n_suffixes, lm.d_vocab, dtype=torch.float64)
    read = _scores(readout, logits)
    torch.testing.assert_close(_scores(readout, logits + 1000), read, atol=1e-9, rtol=0)
    assert torch.isfinite(_scores(readout, 1e4 * logits)).all()
    other = logits.clone()
    other[:, readout.tokens[0]] += 1
    assert not torch.allclose(_scores(readout, other), read)


def _scores(readout: Readout, logits: torch.Tensor) -> torch.Tensor:
    logp = readout.log_probabilities(logits)
    return readout.scores(logp.reshape(-1, readout.n_suffixes, len(readout.tokens)))


def test_log_probabilities_are_those_of_the_full_softmax(lm: LanguageModel) -> None:
    readout = build_readout(lm, WORDS, TEMPLATES, calibrate=False)
    logits = normal(3, lm.d_vocab)
    want = torch.log_softmax(logits.double(), dim=-1)[:, list(readout.tokens)]
    torch.testing.assert_close(readout.log_probabilities(logits), want)


def test_gradient_is_exact(bytes_lm: LanguageModel) -> None:
    words = {"a": ("xa", "xb", "c"), "b": ("q", "r", "s"), "calm": ("d", "e", "f")}
    readout = build_readout(bytes_lm, words, (" So", " It"), split="score")
    shape = (2, readout.n_suffixes, len(readout.tokens))
    logp = normal(*shape, dtype=torch.float64).log_softmax(-1).requires_grad_()
    assert torch.autograd.gradcheck(readout.scores, (logp,))


def test_gradient_of_the_scales_is_exact(lm: LanguageModel) -> None:
    readout = build_readout(lm, WORDS, (" So",), scales=True)
    direction = normal(readout.n_suffixes, len(readout.tokens), dtype=torch.float64)

    def along(step: torch.Tensor) -> torch.Tensor:
        return readout.scores((direction * step - 3)[None])

    step = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(along, (step,))


def test_gradient_reaches_the_logits(lm: LanguageModel) -> None:
    readout = build_readout(lm, WORDS, TEMPLATES)
    logits = normal(readout.n_suffixes, lm.d_vocab).requires_grad_()
    _scores(readout, logits)[0, 0].backward()
    assert logits.grad is not None
    glad = readout.tokens.index(lm.tokenizer.encode(" glad")[0])
    assert (logits.grad[:, readout.tokens[glad]] > 0).all()
    # The softmax's own part cancels between an emotion and the others.
    unread = [k for k in range(lm.d_vocab) if k not in readout.tokens]
    assert logits.grad[:, unread].abs().max() < 1e-6


def test_order_of_emotions_and_words_only_moves_columns(lm: LanguageModel) -> None:
    turned = {e: WORDS[e][::-1] for e in ("fear", "calm", "joy")}
    first = readout_of(lm, TEXTS, build_readout(lm, WORDS, TEMPLATES))
    second = readout_of(lm, TEXTS, build_readout(lm, turned, TEMPLATES))
    np.testing.assert_allclose(first[:, [1, 0, 2]], second, atol=1e-9)


def test_readouts_of_emotions_sum_to_zero(bytes_lm: LanguageModel) -> None:
    readout = build_readout(bytes_lm, templates=(" So",), split="score", calibrate=False)
    assert len(readout.emotions) == 8
    read = readout_of(bytes_lm, TEXTS[:1], readout, batch_size=64)
    assert readout.names[8:] == ("all",)
    np.testing.assert_allclose(read[:, :8].sum(1), 0, atol=1e-9)


def test_float32_is_kept(lm: LanguageModel) -> None:
    readout = build_readout(lm, WORDS, TEMPLATES, scales=True)
    logp = normal(2, readout.n_suffixes, len(readout.tokens)) - 5
    assert readout.scores(logp).dtype == torch.float32
    torch.testing.assert_close(
        readout.scores(logp).double(), readout.scores(logp.double()), atol=1e-4, rtol=0
    )


def test_open_edits_are_seen(lm: LanguageModel) -> None:
    readout = build_readout(lm, WORDS, TEMPLATES)
    plain = readout_of(lm, TEXTS, readout)
    with edit(lm, {"blocks.1.hook_resid_post": lambda x, _: -x}):
        edited = readout_of(lm, TEXTS, readout)
    assert np.abs(edited - plain).max() > 0.01
    np.testing.assert_array_equal(readout_of(lm, TEXTS, readout), plain)


def test_without_calm_words_there_is_no_all(lm: LanguageModel) -> None:
    words = {e: w for e, w in WORDS.items() if e != "calm"}
    readout = build_readout(lm, words, TEMPLATES)
    assert readout.names == ("joy", "fear")
    whole = readout_of(lm, TEXTS, build_readout(lm, WORDS, TEMPLATES))
    np.testing.assert_allclose(readout_of(lm, TEXTS, readout), whole[:, :2], atol=1e-6)


@pytest.mark.parametrize("texts", [(), "one text", ("",), ("good", "  "), ("a", 3)])
def test_texts_that_cannot_be_read(lm: LanguageModel, texts: Sequence[str]) -> None:
    readout = build_readout(lm, WORDS, TEMPLATES)
    with pytest.raises(StimulusError, match="text"):
        readout.rows(lm, texts)


def test_a_text_too_long_with_a_prefix_is_refused(bytes_lm: LanguageModel) -> None:
    readout = build_readout(bytes_lm, WORDS, (" So",), split="score", calibrate=False)
    longest = max(len(prefix) for _, prefix in readout.suffixes)
    room = bytes_lm.context_length - len(" So") - longest
    readout.rows(bytes_lm, ["a" * room])
    with pytest.raises(StimulusError, match="context"):
        readout.rows(bytes_lm, ["a" * (room + 1)])


def test_a_model_with_another_tokenizer_is_refused(
    lm: LanguageModel, bytes_lm: LanguageModel
) -> None:
    readout = build_readout(lm, WORDS, TEMPLATES)
    with pytest.raises(ConfigError, match="another tokenizer"):
        readout_of(bytes_lm, TEXTS, readout)


@pytest.mark.parametrize("free", [(), "N/A"])
def test_calibration_needs_texts(lm: LanguageModel, free: Sequence[str]) -> None:
    with pytest.raises(ConfigError, match="content-free"):
        build_readout(lm, WORDS, TEMPLATES, content_free=free)
    assert not build_readout(lm, WORDS, TEMPLATES, calibrate=False, content_free=free).calibrated


def test_scores_of_another_shape_are_refused(lm: LanguageModel) -> None:
    readout = build_readout(lm, WORDS, TEMPLATES)
    with pytest.raises(ConfigError, match=r"\[n_texts, 2, 10\]"):
        readout.scores(torch.zeros(3, 1, 10))


@pytest.mark.parametrize(
    ("templates", "match"),
    [
        ((), "at least one"),
        ("It felt", "as a list"),
        (("It felt ",), "ends in a blank"),
        (("It felt\n",), "ends in a blank"),
        (("  ",), "empty"),
        (("It felt", "It felt"), "twice"),
    ],
)
def test_templates_that_cannot_be_used(
    lm: LanguageModel, templates: Sequence[str], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        build_readout(lm, WORDS, templates)


def test_facts_say_what_was_read_and_what_was_not(lm: LanguageModel) -> None:
    words = {**WORDS, "joy": (*WORDS["joy"], "cheerful")}
    facts = build_readout(lm, words, TEMPLATES, scales=True, content_free=("N/A",)).describe()
    assert facts["words"]["joy"] == list(WORDS["joy"])
    assert facts["dropped"] == {"joy": {"cheerful": "split"}, "fear": {}, "calm": {}}
    assert facts["templates"] == list(TEMPLATES)
    assert facts["content_free"] == ["N/A"]
    assert set(facts["scales"]) == {"valence", "arousal"}


def test_columns_of_contrasts() -> None:
    peaks = tiny_model("llama", words=[w for g in emotion_words("plutchik").values() for w in g])
    plutchik = build_readout(peaks, calibrate=False, scales=True)
    ekman = build_readout(peaks, emotion_words("ekman"), calibrate=False)
    assert readout_name_of("grief", plutchik) == "grief"
    assert readout_name_of("grief", ekman) == "sadness"
    assert readout_name_of("ecstasy", ekman) == "happiness"
    assert readout_name_of("all", ekman) == "all"
    assert readout_name_of("joy", plutchik) == "ecstasy"
    assert readout_name_of("happiness", plutchik) == "ecstasy"
    assert readout_name_of("valence", plutchik) == "valence"
    for missing in ("vigilance", "admiration", "valence", "nonsense"):
        with pytest.raises(ConfigError, match="anger, disgust, fear"):
            readout_name_of(missing, ekman)
