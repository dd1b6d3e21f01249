"""Who may ask: our own page on this machine, so much at once, and nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from affectlens.demo.guards import SECURITY_HEADERS, Guard, RateLimit, RefusedError
from affectlens.demo.settings import DemoSettings

HERE = "http://127.0.0.1:8642"


def client(**settings: Any) -> TestClient:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        size = len(await Request(scope, receive).body())
        await JSONResponse({"size": size})(scope, receive, send)

    settings.setdefault("settings", DemoSettings())
    return TestClient(Guard(echo, **settings), base_url=HERE)


@pytest.mark.parametrize("host", ["127.0.0.1:8642", "localhost:1", "LOCALHOST", "[::1]:8642"])
def test_names_of_this_machine_are_served(host: str) -> None:
    assert client().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "192.168.0.7",
        "localhost@evil.example",
        "[",
        "",
        "localhost:99999999",
        "127.0.0.1/x",
        "0.0.0.0",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    answer = client().get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "own address" in answer.json()["error"]


def test_a_remote_server_answers_to_numbers_and_its_name_but_to_no_other() -> None:
    served = client(names=("box",), remote=True)
    for host, status in {"192.168.0.7:8642": 200, "box": 200, "rebound.example": 421}.items():
        assert served.get("/", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (HERE, 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:9", 403),
        (HERE + ".evil.example", 403),
    ],
)
def test_requests_of_other_sites_are_refused(origin: str, status: int) -> None:
    answer = client().post("/", json={}, headers={"origin": origin})
    assert answer.status_code == status


def test_a_cross_site_post_without_origin_is_refused() -> None:
    answer = client().post("/", json={}, headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_another_site_can_send_unasked_starts_nothing(kind: str) -> None:
    assert client().post("/", content="{}", headers={"content-type": kind}).status_code == 415


def test_a_body_that_is_too_large_is_refused_by_its_header_and_by_its_size() -> None:
    small = client(settings=DemoSettings(max_body=10))
    kind = {"content-type": "application/json"}
    assert small.post("/", content=b"1234567890", headers=kind).json() == {"size": 10}
    assert small.post("/", content=b"12345678901", headers=kind).status_code == 413
    chunks = iter([b"123456", b"123456"])
    answer = small.post("/", content=chunks, headers=kind)
    assert answer.status_code == 413
    assert "10 bytes" in answer.json()["error"]


@pytest.mark.parametrize("headers", [{}, {"host": "evil.example"}])
def test_every_answer_has_the_security_headers(headers: dict[str, str]) -> None:
    answer = client().get("/", headers=headers)
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limit(clock: Callable[[], float]) -> RateLimit:
    return RateLimit(DemoSettings(per_client=2, per_minute=3), clock)


def test_so_many_at_once(clock: Clock) -> None:
    rates = limit(clock)
    first, _ = rates.take("a"), rates.take("a")
    with pytest.raises(RefusedError, match="in work for you") as refused:
        rates.take("a")
    assert refused.value.status == 429
    rates.take("b")
    first()
    first()  # giving back twice frees one place only
    rates.take("a")
    with pytest.raises(RefusedError):
        rates.take("a")


def test_so_many_in_a_minute(clock: Clock) -> None:
    rates = limit(clock)
    for _ in range(3):
        rates.take("a")()
    with pytest.raises(RefusedError, match="in a minute"):
        rates.take("a")
    clock.now = 60.1
    rates.take("a")
