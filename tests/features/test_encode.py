"""Reading a battery: the right tokens, the right hook, the mask, and independence of the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import sae_lens
import torch

from affectlens.data.errors import ConfigError, HookError, MachineError, StimulusError
from affectlens.data.hooks import capture
from affectlens.data.models import LanguageModel
from affectlens.data.stimuli import Battery, Stimulus, make_battery
from affectlens.features import encode as encode_module
from affectlens.features.config import SearchConfig
from affectlens.features.design import PairDesign
from affectlens.features.encode import encode_items
from affectlens.features.encoding import Reading, TokenActivations
from affectlens.features.pooling import pool, reading_for
from affectlens.features.results import SearchSummary, read_table
from affectlens.features.search import search
from affectlens.sae.errors import SAEError
from affectlens.sae.model import SparseAutoencoder

HOOK = "blocks.1.hook_resid_post"
SUFFIX = " The end."
EMOTIONS = ("rage", "grief")


@dataclass(frozen=True, eq=False)
class Dense:
    """Pooled activations, dense."""

    pooled: np.ndarray
    item_ids: tuple[str, ...]
    read_tokens: tuple[str, ...]
    n_read: np.ndarray
    n_masked: int


def encode_battery(
    lm: LanguageModel, sae: SparseAutoencoder, battery: Battery, config: SearchConfig
) -> Dense:
    """A battery as the search reads it."""
    items = [(item.id, item.text) for item in battery.items]
    reading = reading_for(config.pooling, config)
    (encoded,) = encode_items(lm, [sae], items, reading, batch_size=config.batch_size)
    found = pool(encoded, config.pooling, lambda token: str(lm.tokenizer.decode([token])))
    return Dense(
        found.values.toarray(), found.item_ids, found.read_tokens, found.n_read, found.n_masked
    )


def make_sae(d_in: int, hook: str = HOOK, **metadata: object) -> SparseAutoencoder:
    config = sae_lens.StandardSAEConfig(
        d_in=d_in,
        d_sae=64,
        metadata=sae_lens.saes.sae.SAEMetadata(hook_name=hook, **metadata),
    )
    sae = sae_lens.StandardSAE(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return SparseAutoencoder(sae)


def make_pairs(n_domains: int = 4, long: str = "") -> Battery:
    items = []
    for emotion in EMOTIONS:
        for d in range(1, n_domains + 1):
            for kind, words in (("clinical", "broke the cup"), ("neutral", "held it")):
                text = f"{emotion} {d}: someone {words}{'!' * d}{long}"
                control = f"N-{emotion}-{d}" if kind == "clinical" else None
                name = f"C-{emotion}-{d}" if kind == "clinical" else f"N-{emotion}-{d}"
                items.append(
                    Stimulus(
                        name,
                        emotion,
                        "peak",
                        str(d),
                        "place",
                        control,
                        len(text.split()),
                        text,
                        kind,  # type: ignore[arg-type]
                    )
                )
    return make_battery("made", items, "test")


@pytest.fixture
def model(tiny: Callable[[str], LanguageModel]) -> LanguageModel:
    return tiny("llama")


def latents_of(lm: LanguageModel, sae: SparseAutoencoder, text: str) -> np.ndarray:
    """Latents [n_tokens, d_sae] of one text alone."""
    return sae.encode(capture(lm, [HOOK], lm.encode([text]))[HOOK][0]).numpy()


@pytest.mark.parametrize("pooling", ["suffix", "mean", "max", "last"])
def test_pooling_is_what_it_says(lm: LanguageModel, pooling: str) -> None:
    sae, battery = make_sae(lm.d_model), make_pairs()
    config = SearchConfig(pooling=pooling, suffix=SUFFIX, batch_size=3)  # type: ignore[arg-type]
    found = encode_battery(lm, sae, battery, config)
    assert found.item_ids == tuple(i.id for i in battery.items)
    assert found.pooled.dtype == np.float32 and found.pooled.shape == (16, 64)
    for row, item in zip(found.pooled, battery.items, strict=True):
        text = item.text + (SUFFIX if pooling == "suffix" else "")
        z = latents_of(lm, sae, text)
        want = {
            "suffix": z[-len(SUFFIX) :].mean(0),  # one token for each byte
            "mean": z[1:].mean(0),
            "max": z[1:].max(0),
            "last": z[-1],
        }[pooling]
        np.testing.assert_allclose(row, want, rtol=1e-4, atol=1e-5)


def test_read_tokens_are_the_suffix(model: LanguageModel) -> None:
    config = SearchConfig(suffix=SUFFIX)
    found = encode_battery(model, make_sae(model.d_model), make_pairs(), config)
    assert "".join(found.read_tokens) == SUFFIX
    assert found.n_read.tolist() == [len(SUFFIX)] * 16 and found.n_masked == 0


def test_texts_that_end_alike_are_not_read_beyond_the_suffix(model: LanguageModel) -> None:
    battery = make_pairs(long=" and all of them went home.")
    found = encode_battery(model, make_sae(model.d_model), battery, SearchConfig(suffix=SUFFIX))
    assert "".join(found.read_tokens) == SUFFIX


def test_the_batch_size_does_not_matter(model: LanguageModel) -> None:
    sae, battery = make_sae(model.d_model), make_pairs()
    one, many = (
        encode_battery(model, sae, battery, SearchConfig(suffix=SUFFIX, batch_size=b)).pooled
        for b in (1, 16)
    )
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)


def test_the_first_token_and_outliers_are_left_out(model: LanguageModel) -> None:
    battery = make_pairs()
    open_ = make_sae(model.d_model, skip_first=False)
    config = SearchConfig(pooling="mean")
    every = encode_battery(model, open_, battery, config)
    without = encode_battery(model, make_sae(model.d_model), battery, config)
    assert (every.n_read - without.n_read == 1).all() and without.n_masked == 16
    norms = [
        capture(model, [HOOK], model.encode([i.text]))[HOOK][0].norm(dim=-1) for i in battery.items
    ]
    limit = float(torch.cat(norms).quantile(0.9))
    few = encode_battery(
        model, make_sae(model.d_model, skip_first=False, norm_limit=limit), battery, config
    )
    assert few.n_masked == sum(int((n > limit).sum()) for n in norms) > 0
    assert (few.n_read + [int((n > limit).sum()) for n in norms] == every.n_read).all()


def test_nothing_to_read_is_an_error(model: LanguageModel) -> None:
    sae = make_sae(model.d_model, norm_limit=1e-6)
    with pytest.raises(StimulusError, match="16 of 16 items have no token to read"):
        encode_battery(model, sae, make_pairs(), SearchConfig(suffix=SUFFIX))


def test_a_text_longer_than_the_context_is_named(model: LanguageModel) -> None:
    battery = make_pairs(n_domains=1, long=" x" * 1100)
    with pytest.raises(StimulusError, match=r"'C-rage-1'.*2048"):
        encode_battery(model, make_sae(model.d_model), battery, SearchConfig())


def test_an_sae_without_a_hook_is_refused(model: LanguageModel) -> None:
    with pytest.raises(SAEError, match="does not say which hook"):
        encode_battery(model, make_sae(model.d_model, hook=""), make_pairs(), SearchConfig())


ITEMS = [
    ("a", "she broke the cup"),
    ("b", "no"),
    ("c", "it was late, and nobody had come to the door"),
    ("d", "he held it"),
    ("e", "the cup stood there"),
]


def encode_one(
    lm: LanguageModel, sae: SparseAutoencoder, reading: Reading | None = None, **more: object
) -> TokenActivations:
    (found,) = encode_items(lm, [sae], ITEMS, reading, **more)  # type: ignore[arg-type]
    return found


def test_every_token_has_its_latents(lm: LanguageModel) -> None:
    sae = make_sae(lm.d_model)
    found = encode_one(lm, sae, batch_size=2)
    assert found.item_ids == tuple("abcde") and found.d_sae == 64
    assert found.hook_name == HOOK and found.sae_sha256 == sae.info.sha256
    assert (found.n_head, found.n_tail, found.reading) == (0, 0, Reading())
    for name, text in ITEMS:
        one, z = found.item(name), latents_of(lm, sae, text)
        assert one.tokens.tolist() == lm.token_ids(text)
        z[0] = 0  # the first token is masked
        assert not one.keep[0] and one.keep[1:].all()
        np.testing.assert_allclose(one.matrix().toarray(), z, rtol=1e-4, atol=1e-5)


def test_several_saes_share_one_pass(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    saes = [
        make_sae(model.d_model),
        make_sae(model.d_model, hook="blocks.0.hook_resid_pre", skip_first=False),
        make_sae(model.d_model, norm_limit=1.0),
    ]
    alone = [encode_items(model, [sae], ITEMS, batch_size=2)[0] for sae in saes]
    calls: list[list[str]] = []

    def counted(lm: LanguageModel, names: list[str], batch: object) -> object:
        calls.append(list(names))
        return capture(lm, names, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(encode_module, "capture", counted)
    together = encode_items(model, saes, ITEMS, batch_size=2)
    assert calls == [[HOOK, "blocks.0.hook_resid_pre"]] * 3
    for one, other, sae in zip(together, alone, saes, strict=True):
        assert one.hook_name == sae.info.hook_name
        assert np.array_equal(one.keep, other.keep)
        assert np.array_equal(one.latents, other.latents)
        np.testing.assert_allclose(one.values, other.values, rtol=1e-4, atol=1e-5)
    assert together[1].keep.all() and not together[2].keep[1:].all()


def test_neither_batches_nor_blocks_nor_order_matter(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = make_sae(model.d_model)
    want = encode_one(model, sae, batch_size=16)
    largest = []
    encode = SparseAutoencoder.encode

    def watched(self: SparseAutoencoder, x: torch.Tensor) -> torch.Tensor:
        z = encode(self, x)
        largest.append(z.numel() * z.element_size())
        return z

    monkeypatch.setattr(SparseAutoencoder, "encode", watched)
    monkeypatch.setattr(encode_module, "DENSE_BYTES", 3 * 64 * 4)
    blocks = encode_one(model, sae, batch_size=3)
    assert max(largest) == 3 * 64 * 4
    turned = encode_items(model, [sae], ITEMS[::-1])[0]
    for found in (blocks, *(turned.item(name) for name, _ in ITEMS)):
        whole = want if found is blocks else want.item(found.item_ids[0])
        assert np.array_equal(found.tokens, whole.tokens)
        np.testing.assert_allclose(
            found.matrix().toarray(), whole.matrix().toarray(), rtol=1e-4, atol=1e-5
        )


def test_prefix_and_suffix_are_told_from_the_text(lm: LanguageModel) -> None:
    sae, reading = make_sae(lm.d_model), Reading("So:\n", " The end.", "both")
    found = encode_one(lm, sae, reading)
    assert (found.n_head, found.n_tail) == (4, 9)  # one token for each byte
    for name, text in ITEMS:
        one = found.item(name)
        assert lm.tokenizer.decode(one.tokens) == reading.around(text)
        assert lm.tokenizer.decode(one.tokens[one.content()]) == text


def test_texts_that_are_alike_at_the_seam_keep_their_own(model: LanguageModel) -> None:
    items = [("a", "so it is so"), ("b", "so was it so")]
    for chosen in (items, items[:1]):
        (found,) = encode_items(
            model, [make_sae(model.d_model)], chosen, Reading("so ", " so", "x")
        )
        assert (found.n_head, found.n_tail) == (3, 3)


def test_a_suffix_does_not_change_the_text_before_it(model: LanguageModel) -> None:
    sae = make_sae(model.d_model)
    for pooling in ("mean", "max", "last", "firing"):
        bare, suffixed = (
            pool(encode_one(model, sae, reading), pooling)  # type: ignore[arg-type]
            for reading in (None, Reading(suffix=SUFFIX, name="suffix"))
        )
        assert bare.n_read.tolist() == suffixed.n_read.tolist()
        np.testing.assert_allclose(
            bare.values.toarray(), suffixed.values.toarray(), rtol=1e-4, atol=1e-5
        )


def test_the_readout_is_the_last_token_of_its_prompt(model: LanguageModel) -> None:
    sae, reading = make_sae(model.d_model), reading_for("readout", SearchConfig())
    found = pool(encode_one(model, sae, reading), "readout", lambda t: chr(t))
    assert found.n_read.tolist() == [1] * 5 and len(found.read_tokens) == 1
    for row, (_, text) in zip(found.values.toarray(), ITEMS, strict=True):
        want = latents_of(model, sae, text + reading.suffix)[-1]
        np.testing.assert_allclose(row, want, rtol=1e-4, atol=1e-5)


def test_latents_below_zero_are_kept(model: LanguageModel) -> None:
    sae = make_sae(model.d_model)
    encode = sae.encode
    sae.encode = lambda x: -encode(x)  # type: ignore[method-assign]
    found = encode_one(model, sae)
    assert len(found.values) and (found.values < 0).all()


def test_a_mask_that_leaves_nothing_gives_no_entries(model: LanguageModel) -> None:
    found = encode_one(model, make_sae(model.d_model, norm_limit=1e-6))
    assert not found.keep.any() and len(found.values) == 0


def test_inputs_that_cannot_be_encoded_are_refused(model: LanguageModel) -> None:
    sae = make_sae(model.d_model)
    with pytest.raises(SAEError, match="no SAE was given"):
        encode_items(model, [], ITEMS)
    with pytest.raises(StimulusError, match="no texts"):
        encode_items(model, [sae], [])
    with pytest.raises(StimulusError, match="item 'a' of set X is given twice"):
        encode_items(model, [sae], [*ITEMS, ITEMS[0]], label="set X")
    with pytest.raises(StimulusError, match="item 'f' is empty"):
        encode_items(model, [sae], [*ITEMS, ("f", " ")], Reading(suffix=SUFFIX))
    with pytest.raises(ConfigError, match="batch_size is 0"):
        encode_items(model, [sae], ITEMS, batch_size=0)
    with pytest.raises(HookError, match="99"):
        encode_items(model, [make_sae(model.d_model, "blocks.99.hook_resid_post")], ITEMS)
    with pytest.raises(SAEError, match="another model or layer"):
        encode_items(model, [make_sae(model.d_model + 1)], ITEMS)


def test_values_that_are_not_finite_are_refused(model: LanguageModel) -> None:
    sae = make_sae(model.d_model)
    sae.sae.b_enc.data[3] = float("nan")
    with pytest.raises(SAEError, match="not finite"):
        encode_one(model, sae)


def test_an_sae_that_is_not_sparse_is_refused_before_memory_ends(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_module, "MAX_ENTRIES", 100)
    with pytest.raises(MachineError, match=r"of 64 latents active on a token, .* at most 100"):
        encode_one(model, make_sae(model.d_model))


def test_design_follows_ids_not_order() -> None:
    battery = make_pairs()
    ids = [i.id for i in reversed(battery.items)]
    design = PairDesign.from_battery(battery, ids)
    assert [ids[i] for i in design.clinical] == [p.clinical.id for p in battery.pairs]
    assert [ids[i] for i in design.neutral] == [p.neutral.id for p in battery.pairs]
    with pytest.raises(StimulusError, match="1 items of battery 'made' were not encoded"):
        PairDesign.from_battery(battery, ids[1:])


def test_search_from_model_to_files(model: LanguageModel, tmp_path: Path) -> None:
    sae, battery = make_sae(model.d_model), make_pairs()
    config = SearchConfig(suffix=SUFFIX, n_permutations=200, min_items=1)
    found = search(model, sae, battery, config, out=tmp_path, lexical_warning="TF-IDF 1.00")
    assert found.summary.battery_sha256 == battery.sha256
    assert "".join(found.read_tokens) == SUFFIX
    assert found.contrasts == ("all", *battery.emotions)
    assert SearchSummary.read(tmp_path).lexical_warning == "TF-IDF 1.00"
    assert len(read_table(tmp_path, "search/features")) == len(found.table)
    assert len(found.stats) == 0


def test_search_refuses_an_sae_of_another_model(model: LanguageModel) -> None:
    with pytest.raises(SAEError, match="d_in=8"):
        search(model, make_sae(8), make_pairs(), SearchConfig())
    other = make_sae(model.d_model, model_fingerprint="f" * 64)
    with pytest.raises(SAEError, match="fingerprint"):
        search(model, other, make_pairs(), SearchConfig())
