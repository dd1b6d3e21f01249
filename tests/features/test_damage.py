"""No damage is shown by equivalence: tests by hand and against SciPy, documents, a real edit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from affectlens.data.corpus import Corpus, Document, held_out
from affectlens.data.errors import ConfigError
from affectlens.data.models import LanguageModel
from affectlens.features.damage import DamageArm, damage_table, equivalence, neutral_texts
from affectlens.features.effect_columns import DAMAGE_COLUMNS
from affectlens.features.jobs import Job
from affectlens.features.specs import AddDirection

from .made_saes import make_sae


def test_bounds_and_tests_are_scipys(rng: np.random.Generator) -> None:
    kl, change = rng.gamma(2, 0.01, 12), rng.normal(0.01, 0.02, 12)
    found = equivalence(kl, change, 0.1, 0.05)
    below = stats.ttest_1samp(kl, 0.1, alternative="less")
    assert found["p_kl"] == pytest.approx(below.pvalue)
    assert found["kl_high"] == pytest.approx(stats.ttest_1samp(kl, 0).confidence_interval(0.9).high)
    low = stats.ttest_1samp(change, -0.05, alternative="greater").pvalue
    high = stats.ttest_1samp(change, 0.05, alternative="less").pvalue
    assert found["p_ce"] == pytest.approx(max(low, high))
    interval = stats.ttest_1samp(change, 0).confidence_interval(0.9)
    assert (found["ce_low"], found["ce_high"]) == pytest.approx((interval.low, interval.high))
    assert found["no_damage"]


@pytest.mark.parametrize(("kl", "change"), [(0.2, 0.0), (0.01, 0.09), (0.01, -0.09), (0.09, 0.045)])
def test_damage_on_either_count_is_seen(kl: float, change: float) -> None:
    spread = np.array([-1, 1, -1, 1, -1, 1.0]) * 0.05
    found = equivalence(kl + spread.clip(0), change + spread, 0.1, 0.05)
    assert not found["no_damage"]


def test_nothing_written_is_no_damage_and_one_document_shows_nothing() -> None:
    nothing = equivalence(np.zeros(5), np.zeros(5), 0.1, 0.05)
    assert nothing["no_damage"]
    assert (nothing["p_kl"], nothing["kl_high"]) == (0.0, 0.0)
    one = equivalence(np.zeros(1), np.zeros(1), 0.1, 0.05)
    assert not one["no_damage"]
    assert np.isnan(one["kl_high"])
    assert one["p_ce"] == 1


def test_the_level_holds_at_the_margin() -> None:
    """True KL at its margin: at most 5% (and noise) of 1,000 data sets are called no damage."""
    rng = np.random.default_rng(0)
    wrong = sum(
        equivalence(rng.normal(0.1, 0.02, 8), np.zeros(8), 0.1, 0.05)["no_damage"]
        for _ in range(1000)
    )
    assert wrong / 1000 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


def made_corpus(n: int) -> Corpus:
    documents = tuple(Document(f"d{i}", f"{i:04} is a number in a list. " * 9) for i in range(n))
    return Corpus("made", documents, "", {})


def test_documents_are_held_out_cut_and_seeded(tiny_llama: LanguageModel) -> None:
    corpus = made_corpus(100)
    texts = neutral_texts(tiny_llama, corpus, 3, 20, 0)
    assert texts == neutral_texts(tiny_llama, corpus, 3, 20, 0)
    out = held_out([d.id for d in corpus.documents])
    held = {d.text[:20] for d, kept in zip(corpus.documents, out, strict=True) if kept}
    assert set(texts) <= held
    assert {len(tiny_llama.token_ids(t)) for t in texts} == {20}
    with pytest.raises(ConfigError, match="damage_documents is 90; ask for fewer"):
        neutral_texts(tiny_llama, corpus, 90, 20, 0)


def test_a_strong_push_damages_and_none_does_not(tiny_llama: LanguageModel) -> None:
    sae = make_sae(tiny_llama)
    texts = neutral_texts(tiny_llama, made_corpus(100), 4, 24, 0)
    direction = np.random.default_rng(0).standard_normal(tiny_llama.d_model)
    labels = {"emotion": "grief", "intervention": "add", "strength": 1.0}
    arms = [
        DamageArm({**labels, "arm": "chosen"}, Job([AddDirection(50 * direction)])),
        DamageArm({**labels, "arm": "random"}, Job([])),
    ]
    table = damage_table(tiny_llama, sae, texts, arms, 0.1, 0.05)
    assert list(table.columns) == list(DAMAGE_COLUMNS)
    assert table["no_damage"].tolist() == [False, True]
    assert table.loc[0, "kl"] > 0.1
    assert not table.loc[1, ["kl", "ce_change"]].astype(float).any()
    assert table["n_tokens"].tolist() == [4 * 23] * 2
