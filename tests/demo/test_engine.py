"""The thread that owns the model: the two texts, sharing, turns, cancelling, errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from affectlens.data.errors import ConfigError
from affectlens.data.generation import Sampling, generate_ids
from affectlens.data.hooks import capture
from affectlens.data.models import LanguageModel
from affectlens.data.tiny import tiny_model
from affectlens.demo.asked import Turned
from affectlens.demo.engine import Engine, NotReadyError, QueueFullError
from affectlens.demo.settings import DemoSettings
from affectlens.demo.world import World
from affectlens.features.interventions import applied, clamped
from affectlens.features.specs import AddLatents

from .demo_world import (
    D_SAE,
    LOUD,
    SILENT,
    Heard,
    endless,
    hooks_of,
    made_world,
    until,
    wanted,
)


@pytest.fixture(scope="module")
def world() -> World:
    return endless(made_world())


def started(world: World, **limits: Any) -> Engine:
    engine = Engine(lambda: world, DemoSettings(**limits))
    engine.start()
    until(lambda: engine.status.state == "ready")
    return engine


@pytest.fixture
def engine(world: World) -> Iterator[Engine]:
    made = started(world)
    yield made
    made.stop()


def heard(engine: Engine, *turned: Turned, **more: Any) -> Heard:
    listener = Heard()
    engine.submit(wanted(*turned, **more), listener)
    listener.until("done", "error")
    return listener


def plain(lm: LanguageModel, **settings: Any) -> str:
    return lm.generate("The day began", max_new_tokens=12, **settings)


def test_both_texts_are_those_of_the_library(engine: Engine, world: World) -> None:
    told = heard(engine, Turned(LOUD, "add", 0.8))
    with applied(world.lm, world.sae, [AddLatents((LOUD,), (0.8,))]):
        steered = plain(world.lm)
    assert told.texts() == (plain(world.lm), steered)
    assert steered != plain(world.lm)


def test_a_clamp_is_in_units_of_the_largest_activation(engine: Engine, world: World) -> None:
    told = heard(engine, Turned(LOUD, "clamp", 3.0))
    with clamped(world.lm, world.sae, {LOUD: 6.0}):
        assert told.texts()[1] == plain(world.lm)


def test_sampled_texts_follow_the_seed_as_the_shown_python_does(
    engine: Engine, world: World
) -> None:
    told = heard(engine, Turned(LOUD, "add", 0.0), temperature=0.9, seed=7)
    same = plain(world.lm, temperature=0.9, top_p=engine.settings.top_p, seed=0, streams=[7])
    assert told.texts()[0] == same
    assert heard(engine, temperature=0.9, seed=8).texts()[0] != same


@pytest.mark.parametrize("turned", [(), (Turned(LOUD, "add", 0.0),)])
def test_strength_0_gives_equal_texts(engine: Engine, turned: tuple[Turned, ...]) -> None:
    told = heard(engine, *turned, temperature=1.0, seed=3)
    default, steered = told.texts()
    assert default == steered
    assert next(e for e in told.seen if e["type"] == "written")["share"] == 0


def test_activations_are_those_of_the_residual_before_the_edit(
    engine: Engine, world: World
) -> None:
    told = heard(engine, Turned(LOUD, "add", 0.0), Turned(5, "add", 0.0))
    lm, sae = world.lm, world.sae
    ids = lm.token_ids("The day began")
    (more,) = generate_ids(lm, [ids], Sampling(12))
    resid = capture(lm, [sae.info.hook_name], lm.pad([[*ids, *more]]))[sae.info.hook_name]
    z = sae.encode(resid[0].float())[:, [LOUD, 5]]
    prompt = next(e for e in told.seen if e["type"] == "prompt")
    assert prompt["acts"][0] is None  # the first token is masked
    read = [e["acts"][0]["values"] for e in told.seen if e["type"] == "step" and e["acts"][0]]
    rows = torch.tensor([*prompt["acts"][1:], *read])
    assert len(read) == 12
    assert float(z.max()) > 0
    torch.testing.assert_close(rows, z[1:], atol=1e-3, rtol=1e-3)


def test_requests_that_come_together_share_a_batch(world: World) -> None:
    engine = started(world, gather_s=0.5)
    listeners = [Heard(), Heard()]
    for seed, listener in enumerate(listeners):
        engine.submit(wanted(Turned(LOUD, "add", 0.5), temperature=0.9, seed=seed), listener)
    assert [ls.until("started")["together"] for ls in listeners] == [2, 2]
    alone = started(world, max_in_batch=1)
    for seed, listener in enumerate(listeners):
        listener.until("done")
        told = heard(alone, Turned(LOUD, "add", 0.5), temperature=0.9, seed=seed)
        assert told.texts() == listener.texts()
    engine.stop()
    alone.stop()


def test_a_later_request_takes_turns_with_an_earlier_one(world: World) -> None:
    engine = started(world)
    first, second = Heard(), Heard()
    engine.submit(wanted(max_tokens=200), first)
    first.until("step")
    engine.submit(wanted(max_tokens=3, temperature=0.5), second)
    second.until("done")
    assert not any(e["type"] == "written" for e in first.seen)
    first.until("done", timeout=60)
    engine.stop()


def test_those_that_wait_are_told_their_place_and_too_many_are_refused(world: World) -> None:
    engine = started(world, max_batches=1, max_waiting=2, max_tokens=1500)
    running, waiting = Heard(), [Heard(), Heard()]
    job = engine.submit(wanted(max_tokens=1500), running)
    running.until("step")
    for listener in waiting:
        engine.submit(wanted(max_tokens=2), listener)
    assert [ls.until("queued")["place"] for ls in waiting] == [1, 2]
    with pytest.raises(QueueFullError, match="2 texts wait"):
        engine.submit(wanted(), Heard())
    engine.cancel(job)
    for listener in waiting:
        listener.until("done")
    engine.stop()


def test_a_cancelled_text_stops_and_leaves_no_hook(world: World) -> None:
    engine = started(world, max_tokens=1500)
    before = hooks_of(world.lm)
    listener = Heard()
    job = engine.submit(wanted(Turned(LOUD, "add", 0.8), max_tokens=1500), listener)
    listener.until("step")
    engine.cancel(job)
    until(lambda: hooks_of(world.lm) == before)
    told = heard(engine, max_tokens=2)  # the engine is free again
    assert told.texts()[0]
    assert sum(e["type"] == "step" for e in listener.seen) < 1400
    engine.stop()
    assert hooks_of(world.lm) == before


@pytest.mark.parametrize(
    ("turned", "word"),
    [(Turned(D_SAE, "add", 1.0), "0 to 95"), (Turned(SILENT, "clamp", 1.0), "never fired")],
)
def test_features_the_sae_does_not_have_are_refused(
    engine: Engine, turned: Turned, word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        engine.submit(wanted(turned), Heard())


def test_an_opening_that_is_too_long_is_told_and_the_next_is_served(engine: Engine) -> None:
    told = heard(engine, prompt="a" * 1500)
    assert "at most 400" in told.seen[-1]["message"]
    assert heard(engine).texts()[0]


def test_a_stopped_engine_tells_those_that_wait(world: World) -> None:
    engine = started(world, max_tokens=1500)
    listener = Heard()
    engine.submit(wanted(max_tokens=1500), listener)
    listener.until("step")
    engine.stop()
    assert "stopped" in listener.until("error")["message"]
    with pytest.raises(NotReadyError):
        engine.submit(wanted(), Heard())


def test_what_goes_wrong_while_loading_is_said() -> None:
    def fail() -> World:
        raise ConfigError("the SAE is of another model")

    engine = Engine(fail, DemoSettings())
    with pytest.raises(NotReadyError, match="being loaded"):
        _ = engine.world
    engine.start()
    until(lambda: engine.status.state == "failed")
    assert "another model" in engine.status.message
    with pytest.raises(NotReadyError, match="another model"):
        _ = engine.world


def test_a_model_with_the_words_gets_bars_and_another_a_reason(engine: Engine) -> None:
    from affectlens.data.taxonomy import CALM_WORDS, EMOTION_WORDS

    told = heard(engine)
    assert "why" in next(e for e in told.seen if e["type"] == "readout")
    words = [w for group in (*EMOTION_WORDS.values(), CALM_WORDS) for w in group]
    able = started(endless(made_world(tiny_model("llama", n_layers=3, words=words))))
    told = heard(able, max_tokens=3)
    bars = next(e for e in told.seen if e["type"] == "readout")["bars"]
    assert {"grief", "all"} <= {bar["name"] for bar in bars}
    assert all(bar["values"][0] == bar["values"][1] for bar in bars)
    able.stop()
