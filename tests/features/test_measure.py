"""Effects measured from stored residuals against full forward passes with the edit on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch

from affectlens.data.errors import ConfigError, HookError
from affectlens.data.hooks import edit
from affectlens.data.models import LanguageModel
from affectlens.features import measure, stored_rows
from affectlens.features.interventions import residual_edit
from affectlens.features.jobs import Job, Measured
from affectlens.features.measure import Meter
from affectlens.features.readouts import Readout, readout_of
from affectlens.features.scopes import FromPosition, Positions, Scope
from affectlens.features.specs import (
    Ablate,
    AddDirection,
    AddLatents,
    Clamp,
    MinClamp,
    PerRow,
    ProjectOut,
    Scale,
    SetRows,
    Spec,
)
from affectlens.sae.model import SparseAutoencoder

from .made_meters import TEMPLATES, TEXTS, make_readout
from .made_saes import make_sae


def full_effect(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    readout: Readout,
    job: Job,
    specs: Sequence[Spec],
    texts: Sequence[str] = TEXTS,
) -> npt.NDArray[np.float64]:
    """Text by text: the readout of a full forward pass with the edit on, minus that without."""
    effects = []
    for i in range(len(texts)):
        own = [one_row(spec, i) for spec in specs]
        fn, _ = residual_edit(sae, own, job.scope, job.error)
        with edit(lm, {sae.info.hook_name: fn}):
            edited = readout_of(lm, texts[i : i + 1], readout, batch_size=64)
        effects.append(edited - readout_of(lm, texts[i : i + 1], readout, batch_size=64))
    return np.concatenate(effects)


def one_row(spec: Spec, row: int) -> Spec:
    """The spec of one text, without the classes that hold a row for each."""
    if isinstance(spec, SetRows):
        return Clamp(spec.features, tuple(float(v) for v in spec.rows[row]))
    if isinstance(spec, PerRow):
        (own,) = spec.rows[row]
        return own
    return spec


ROWS = ((1.0, 0.0), (2.0, 3.0), (0.5, 0.0), (4.0, 1.0))
CASES: dict[str, tuple[Sequence[Spec], Scope]] = {
    "clamp": ([Clamp((3, 4), (3.0, 1.0))], "content"),
    "ablate": ([Ablate((3, 4, 5, 6))], "content"),
    "scale everywhere": ([Scale((3, 4), 4.0)], "all"),
    "from below": ([MinClamp((7,), (2.0,))], "content"),
    "rows": ([SetRows((3, 9), ROWS)], "content"),
    "rows as a tensor": ([SetRows((3, 9), torch.tensor(ROWS))], "content"),
    "rows as an array": ([SetRows((3, 9), np.array(ROWS))], "content"),
    "each its own": (
        [
            PerRow(
                (
                    (Clamp((3,), (2.0,)),),
                    (Scale((4,), 3.0),),
                    (AddLatents((5,), (0.3,)),),
                    (ProjectOut(((1.0,) * 16 + (0.0,) * 16,)),),
                )
            )
        ],
        "content",
    ),
    "positions": ([Clamp((3,), (9.0,))], Positions((2, -1))),
    "from the end": ([Clamp((3,), (9.0,))], FromPosition(-8)),
    "last": ([AddDirection((1.0, -1.0) * 16)], "last"),
    "two kinds": ([Ablate((3,)), AddLatents((8,), (0.2,)), Clamp((4,), (2.0,))], "prompt"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_effect_is_that_of_a_full_pass(lm: LanguageModel, case: str) -> None:
    sae, readout = make_sae(lm), make_readout(lm)
    specs, scope = CASES[case]
    job = Job(specs, scope)
    meter = Meter(lm, sae, TEXTS, readout, batch_size=3)
    np.testing.assert_allclose(meter.unedited, readout_of(lm, TEXTS, readout), atol=1e-4)
    measured = meter.measure(job)
    assert np.abs(measured.effect).max() > 0.01
    expected = full_effect(lm, sae, readout, job, specs)
    np.testing.assert_allclose(measured.effect, expected, atol=1e-4)


@pytest.mark.parametrize("error", ["drop", "only"])
def test_edits_of_the_error_term(lm: LanguageModel, error: str) -> None:
    sae, readout = make_sae(lm), make_readout(lm)
    job = Job([], error=error)  # type: ignore[arg-type]
    measured = Meter(lm, sae, TEXTS, readout).measure(job)
    expected = full_effect(lm, sae, readout, job, [])
    np.testing.assert_allclose(measured.effect, expected, atol=1e-4)
    assert measured.effect.all()


@pytest.mark.parametrize("share", [True, False])
def test_words_of_several_tokens(tiny_llama: LanguageModel, share: bool) -> None:
    sae, job = make_sae(tiny_llama), Job([Clamp((3, 4), (3.0, 1.0))])
    readout = make_readout(tiny_llama, long=True)
    assert readout.n_suffixes == 10
    meter = Meter(tiny_llama, sae, TEXTS, readout, share_beginnings=share)
    assert meter.shares_beginnings == [share] * 4
    expected = full_effect(tiny_llama, sae, readout, job, job.specs)  # type: ignore[arg-type]
    np.testing.assert_allclose(meter.measure(job).effect, expected, atol=1e-4)


def test_scales_and_more_suffixes_than_one_row_holds(tiny_llama: LanguageModel) -> None:
    sae, job = make_sae(tiny_llama), Job([Clamp((3, 4), (3.0, 1.0))])
    readout = make_readout(tiny_llama, scales=True)
    assert readout.n_suffixes > 100
    meter = Meter(tiny_llama, sae, TEXTS[:1], readout, batch_size=64)
    assert meter.shares_beginnings == [True]
    expected = full_effect(tiny_llama, sae, readout, job, [*job.specs], TEXTS[:1])  # type: ignore
    np.testing.assert_allclose(meter.measure(job).effect, expected, atol=1e-4)


@pytest.mark.parametrize("place", ["0.hook_resid_pre", "2.hook_resid_pre", "0.hook_resid_post",
                                   "3.hook_resid_post"])  # fmt: skip
def test_every_place_of_the_model(lm: LanguageModel, place: str) -> None:
    sae, readout = make_sae(lm, f"blocks.{place}"), make_readout(lm)
    job = Job([Clamp((3,), (9.0,))])
    measured = Meter(lm, sae, TEXTS, readout).measure(job)
    expected = full_effect(lm, sae, readout, job, job.specs)  # type: ignore[arg-type]
    np.testing.assert_allclose(measured.effect, expected, atol=1e-4)
    assert measured.effect.any()


def test_kl_is_that_of_the_next_token_after_each_template(lm: LanguageModel) -> None:
    sae, readout = make_sae(lm), make_readout(lm)
    specs = [Clamp((3, 4), (6.0, 3.0))]
    measured = Meter(lm, sae, TEXTS, readout).measure(Job(specs))
    for i, text in enumerate(TEXTS):
        kls = []
        for template in TEMPLATES:
            batch = lm.encode([text + template])
            p = lm.forward_logits(batch).double().log_softmax(-1)
            fn, _ = residual_edit(sae, specs)
            with edit(lm, {sae.info.hook_name: fn}):
                q = lm.forward_logits(batch).double().log_softmax(-1)
            kls.append(float((p.exp() * (p - q)).sum()))
        assert measured.kl[i] == pytest.approx(np.mean(kls), abs=1e-5)


class Counter:
    """How often the model was run."""

    def __init__(self, lm: LanguageModel) -> None:
        self.calls = 0
        self._handle = lm.model.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1

    def close(self) -> None:
        self._handle.remove()


@pytest.fixture
def counted(tiny_llama: LanguageModel):
    counter = Counter(tiny_llama)
    yield counter
    counter.close()


def test_what_changes_nothing_is_not_run(tiny_llama: LanguageModel, counted: Counter) -> None:
    meter = Meter(tiny_llama, make_sae(tiny_llama), TEXTS, make_readout(tiny_llama))
    n_rows = len(TEXTS) * 4
    counted.calls = 0
    scaled = Job([Scale((3, 4), 1.0)])
    strengthless = Job([AddDirection((1.0,) * 32, strength=0.0)])
    later = Job([Clamp((3,), (9.0,))], "generated")
    for measured in meter.measure_many([Job([]), scaled, strengthless, later]):
        assert not measured.effect.any()
        assert not measured.kl.any()
        assert measured.tally.tokens == 0
        assert (measured.n_run, measured.n_skipped) == (0, n_rows)
    assert counted.calls == 0
    assert meter.measure(Job([Clamp((3,), (9.0,))])).n_run == n_rows
    assert counted.calls > 0


def test_silent_latents_are_skipped_row_by_row(tiny_llama: LanguageModel) -> None:
    sae, readout = make_sae(tiny_llama), make_readout(tiny_llama)
    meter = Meter(tiny_llama, sae, TEXTS, readout)
    some = 0
    for feature in range(0, 96, 7):
        job = Job([Ablate((feature,))])
        # With a function for specs nothing is known of them beforehand, and each row is tried.
        by_trial = meter.measure(Job(lambda _, f=feature: [Ablate((f,))]))
        measured = meter.measure(job)
        assert (measured.n_run, measured.n_skipped) == (by_trial.n_run, by_trial.n_skipped)
        assert measured.n_run + measured.n_skipped == 16
        np.testing.assert_array_equal(measured.effect, by_trial.effect)
        np.testing.assert_allclose(
            measured.effect, full_effect(tiny_llama, sae, readout, job, job.specs), atol=1e-4
        )
        some += 0 < measured.n_run < 16
    assert some > 3


def test_jobs_do_not_disturb_each_other(lm: LanguageModel) -> None:
    meter = Meter(lm, make_sae(lm), TEXTS, make_readout(lm), batch_size=2)
    jobs = [Job(specs, scope) for specs, scope in CASES.values()]
    jobs += [Job([Clamp((3,), (2.0,))], texts=(3, 0)), Job([Ablate((5,))], texts=np.array([1]))]
    together = meter.measure_many(jobs)
    backwards = meter.measure_many(jobs[::-1])[::-1]
    for job, one, other in zip(jobs, together, backwards, strict=True):
        for same in (other, meter.measure(job)):
            np.testing.assert_allclose(one.effect, same.effect, atol=1e-5)
            np.testing.assert_allclose(one.kl, same.kl, atol=1e-5)
            assert (one.n_run, one.n_skipped) == (same.n_run, same.n_skipped)


def test_texts_of_a_job_keep_their_order(tiny_llama: LanguageModel) -> None:
    meter = Meter(tiny_llama, make_sae(tiny_llama), TEXTS, make_readout(tiny_llama), batch_size=2)
    every = meter.measure(Job([SetRows((3, 9), ROWS)]))
    order = [2, 0, 3]
    table = np.array(ROWS)
    by_rows = Job([SetRows((3, 9), table[order])], texts=order)
    by_call = Job(lambda which: [SetRows((3, 9), table[which])], texts=order)
    for part in meter.measure_many([by_rows, by_call]):
        np.testing.assert_allclose(part.effect, every.effect[order], atol=1e-5)
        np.testing.assert_allclose(part.kl, every.kl[order], atol=1e-5)
        assert every.tally.row_norms is not None
        assert part.tally.row_norms == pytest.approx(every.tally.row_norms[order], rel=1e-5)


def same(one: Measured, other: Measured) -> None:
    np.testing.assert_allclose(one.effect, other.effect, atol=1e-5)
    np.testing.assert_allclose(one.kl, other.kl, atol=1e-5)
    assert one.tally.tokens == other.tally.tokens
    assert one.tally.norm_sum == pytest.approx(other.tally.norm_sum, rel=1e-6)


def test_little_memory_gives_the_same(
    tiny_llama: LanguageModel, counted: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae, readout = make_sae(tiny_llama), make_readout(tiny_llama)
    jobs = [Job(specs, scope) for specs, scope in CASES.values()]
    kept = Meter(tiny_llama, sae, TEXTS, readout, batch_size=2).measure_many(jobs)
    meter = Meter(tiny_llama, sae, TEXTS, readout, batch_size=2, max_bytes=0)
    monkeypatch.setattr(stored_rows, "LATENT_BYTES", 1)
    monkeypatch.setattr(measure, "QUEUE_BYTES", 1)
    counted.calls = 0
    for one, other in zip(meter.measure_many(jobs), kept, strict=True):
        same(one, other)
    assert counted.calls > 0


def test_each_text_is_encoded_once(
    tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = make_sae(tiny_llama)
    meter = Meter(tiny_llama, sae, TEXTS, make_readout(tiny_llama))
    encoded: list[int] = []
    encode = sae.sae.encode

    def count(x: torch.Tensor) -> torch.Tensor:
        encoded.append(x.shape[:-1].numel())
        return encode(x)

    monkeypatch.setattr(sae.sae, "encode", count)
    meter.measure_many([Job([Clamp((f,), (2.0,))], texts=t) for f in (1, 2) for t in (None, (0,))])
    # The shared beginning of a text's rows once: bytes of the texts, and of four suffixes each.
    assert sum(encoded) == sum(map(len, TEXTS)) + len(TEXTS) * (8 + 9 + 7 + 8)
    encoded.clear()
    meter.measure(Job([AddDirection((1.0, -1.0) * 16)]))
    assert not encoded


def test_a_window_shorter_than_a_branched_row(tiny) -> None:
    lm = tiny("gemma2")
    texts = ["Short.", "A text that goes on past the window of its model. " * 3]
    sae, readout, job = make_sae(lm), make_readout(lm), Job([Clamp((3,), (5.0,))])
    meter = Meter(lm, sae, texts, readout, batch_size=1)
    expected = full_effect(lm, sae, readout, job, [Clamp((3,), (5.0,))], texts)
    np.testing.assert_allclose(meter.measure(job).effect, expected, atol=1e-4)
    assert meter.shares_beginnings == [True, False]


def test_edits_of_another_layer_stay_on(tiny_llama: LanguageModel) -> None:
    lm, readout = tiny_llama, make_readout(tiny_llama)
    sae, above = make_sae(lm), make_sae(lm, "blocks.2.hook_resid_post")
    meter = Meter(lm, sae, TEXTS, readout, share_beginnings=False)
    held, _ = residual_edit(above, [Clamp((5,), (4.0,))])
    job = Job([Clamp((3,), (5.0,))])
    with edit(lm, {above.info.hook_name: held}):
        inside = meter.unedited + meter.measure(job).effect
        fn, _ = residual_edit(sae, [Clamp((3,), (5.0,))])
        with edit(lm, {sae.info.hook_name: fn}):
            expected = readout_of(lm, TEXTS, readout)
    np.testing.assert_allclose(inside, expected, atol=1e-4)
    assert np.abs(inside - meter.unedited - meter.measure(job).effect).max() > 1e-3


def test_progress_adds_up_to_the_jobs(tiny_llama: LanguageModel) -> None:
    meter = Meter(tiny_llama, make_sae(tiny_llama), TEXTS, make_readout(tiny_llama), batch_size=2)
    told: list[int] = []
    meter.measure_many([Job([Clamp((3,), (2.0,))], texts=t) for t in (None, (0,), (1, 2))],
                       told.append)  # fmt: skip
    assert sum(told) == 3
    assert meter.measure_many([]) == []


def test_bad_jobs_are_refused(tiny_llama: LanguageModel) -> None:
    meter = Meter(tiny_llama, make_sae(tiny_llama), TEXTS, make_readout(tiny_llama))
    clamp = [Clamp((3,), (2.0,))]
    for job, message in (
        (Job(clamp, texts=(0, 4)), "text 4 is not among the 4 texts"),
        (Job(clamp, texts=(-1,)), "text -1 is not among"),
        (Job(clamp, texts=(1, 1)), "names a text twice"),
        (Job(clamp, texts=()), "at least one whole number"),
        (Job(clamp, texts=(0.5,)), "at least one whole number"),
        (Job(None), "needs a sequence of specs"),
        (Job(clamp[0]), "needs a sequence of specs"),
        (Job(lambda _: None), "needs a sequence of specs"),
        (Job([SetRows((3,), ((1.0,),))]), "SetRows holds 1 rows for 4 texts"),
        (Job([Clamp((3,), (float("nan"),))]), "infinite or not a number"),
        (Job([Clamp((96,), (1.0,))]), "feature 96 is outside the SAE"),
        (Job([Ablate((96,))]), "feature 96 is outside the SAE"),
        (Job([AddDirection((3e38,) * 32, strength=3e38)]), "not finite|infinite"),
        (Job(clamp, "sometimes"), "unknown scope"),
        (Job(clamp, error="gone"), "unknown error term"),
    ):
        with pytest.raises(ConfigError, match=message):
            meter.measure(job)


def test_bad_meters_are_refused(tiny_llama: LanguageModel) -> None:
    readout = make_readout(tiny_llama)
    beyond = make_sae(tiny_llama, "blocks.4.hook_resid_post")
    with pytest.raises(HookError, match="layer"):
        Meter(tiny_llama, beyond, TEXTS, readout)
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        Meter(tiny_llama, make_sae(tiny_llama), TEXTS, readout, batch_size=0)
