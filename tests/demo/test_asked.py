"""Requests: what is allowed comes through, everything else is refused in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectlens.data.errors import ConfigError
from affectlens.demo.asked import Turned, check_features, parse_asked
from affectlens.demo.settings import DemoSettings

from .demo_world import wanted

SETTINGS = DemoSettings()
GOOD: dict[str, Any] = {
    "prompt": "The day began",
    "features": [{"feature": 3, "mode": "add", "value": 0.5}],
    "temperature": 0.8,
    "seed": 4,
    "max_tokens": 20,
    "sae": "abab",
}


def parsed(**changes: Any) -> Any:
    return parse_asked(json.dumps(GOOD | changes).encode(), SETTINGS)


def test_a_valid_request_comes_through() -> None:
    asked = parsed()
    assert asked.features == (Turned(3, "add", 0.5),)
    assert (asked.temperature, asked.seed, asked.max_tokens) == (0.8, 4, 20)


def test_zero_adds_nothing_and_a_clamp_to_zero_does() -> None:
    assert not Turned(3, "add", 0.0).edits
    assert Turned(3, "clamp", 0.0).edits


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"prompt": "  "}, "empty"),
        ({"prompt": 3}, "empty"),
        ({"prompt": "a" * 2001}, "2,001"),
        ({"prompt": "\ud800"}, "surrogate"),
        ({"max_tokens": 201}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 2.0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"seed": 2**31}, "seed"),
        ({"seed": "1"}, "seed"),
        ({"sae": 5}, "sae"),
        ({"other": 1}, "unknown field 'other'"),
        ({"features": {}}, "list"),
        ({"features": [3]}, "object"),
        ({"features": [{"mode": "add", "value": 1}]}, "number"),
        ({"features": [{"feature": -1, "value": 1}]}, "feature must"),
        ({"features": [{"feature": 1, "mode": "eval", "value": 1}]}, "mode"),
        ({"features": [{"feature": 1, "mode": "add", "value": 1.01}]}, "from -1 to 1"),
        ({"features": [{"feature": 1, "mode": "clamp", "value": -0.1}]}, "from 0 to 3"),
        ({"features": [{"feature": 1, "mode": "clamp", "value": 3.1}]}, "from 0 to 3"),
        ({"features": [{"feature": 1}, {"feature": 1}]}, "twice"),
        ({"features": [{"feature": n} for n in range(9)]}, "at most 8"),
    ],
)
def test_what_is_outside_its_limits_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parsed(**changes)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"a"', b"\xff", b'{"prompt": NaN}', b'{"seed": Infinity}', b"[" * 9_000],
)
def test_malformed_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_asked(body, SETTINGS)


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from([*GOOD, "feature", "mode", "value"]), inner, max_size=6
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_body_is_a_request_within_limits_or_refused(body: bytes) -> None:
    try:
        asked = parse_asked(body, SETTINGS)
    except ConfigError as error:
        assert str(error)
        return
    assert 1 <= asked.max_tokens <= SETTINGS.max_tokens
    assert 0 <= asked.temperature <= SETTINGS.max_temperature
    assert len(asked.features) <= SETTINGS.max_features


def test_features_are_held_against_the_loaded_sae() -> None:
    maxima = {3: 2.0}
    facts: dict[str, Any] = {"d_sae": 10, "sae": "abcd" * 16, "maxima": maxima}
    check_features(wanted(Turned(3, "clamp", 1.0), sae="abcdab"), **facts)
    check_features(wanted(Turned(4, "add", 1.0)), **facts)
    with pytest.raises(ConfigError, match="of the SAE ffff"):
        check_features(wanted(sae="ffff"), **facts)
    with pytest.raises(ConfigError, match="0 to 9"):
        check_features(wanted(Turned(10, "add", 1.0)), **facts)
    with pytest.raises(ConfigError, match="never fired"):
        check_features(wanted(Turned(4, "clamp", 1.0)), **facts)
