"""The routes over HTTP: pages, what the run knows, the stream, and refusals in words."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from affectlens.demo.app import build_app
from affectlens.demo.engine import Engine
from affectlens.demo.settings import DemoSettings

from .demo_world import D_SAE, HOSTILE, LOUD, endless, hooks_of, made_world, until
from .served import served

HERE = "http://127.0.0.1:8642"
BODY: dict[str, Any] = {
    "prompt": "The day began",
    "features": [{"feature": LOUD, "mode": "add", "value": 0.8}],
    "max_tokens": 6,
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    world = endless(made_world())
    engine = Engine(lambda: world, DemoSettings())
    app = build_app(engine, engine.settings)
    with TestClient(app, base_url=HERE) as made:
        until(lambda: engine.status.state == "ready")
        yield made


def events(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(part[6:]) for part in answer.text.split("\n\n") if part.startswith("data: ")]


def test_the_page_and_its_parts_hold_no_inline_code(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.text.count("<script") == 1
    assert '<script type="module" src="/static/demo.js"></script>' in page.text
    assert "style=" not in page.text
    assert " on" not in "".join(part.split(">")[0] for part in page.text.split("<") if "=" in part)
    script = client.get("/static/demo.js")
    assert script.headers["content-type"].startswith("text/javascript")
    for name in ("demo", "features", "texts", "bars", "state", "stream", "code"):
        code = client.get(f"/static/{name}.js").text
        assert "innerHTML" not in code
        assert "http" not in code


def test_only_the_files_of_the_page_are_served(client: TestClient) -> None:
    for path in ("/static/", "/static/../app.py", "/static/%2e%2e/app.py", "/etc/passwd"):
        assert client.get(path).status_code == 404


def test_the_stream_tells_both_texts_in_order(client: TestClient) -> None:
    answer = client.post("/api/generate", json=BODY)
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = events(answer)
    kinds = [event["type"] for event in told]
    assert kinds[:2] == ["started", "prompt"]
    assert kinds[-3:] == ["written", "readout", "done"]
    assert set(kinds[2:-3]) == {"step"}


def test_what_the_run_knows_is_told_as_data(client: TestClient) -> None:
    answer = client.get("/api/run")
    assert answer.headers["content-type"] == "application/json"
    known = answer.json()
    assert known["presets"][0]["by_input"] == [LOUD, 5]
    card = next(card for card in known["cards"] if card["feature"] == LOUD)
    assert tuple(card["fires_on"]) == HOSTILE
    assert answer.text.isascii()
    assert "<" in answer.text  # escaped by the page, which is tested in a browser


@pytest.mark.parametrize(
    ("query", "features"),
    [
        ("q=12", [12]),
        ("q=%2312", [12]),
        ("q=GRIEF", [LOUD]),
        ("q=jupyter", [LOUD]),
        ("q=zzz", []),
        ("ids=4,9", [4, 9]),
        ("", []),
    ],
)
def test_features_are_found(client: TestClient, query: str, features: list[int]) -> None:
    found = client.get(f"/api/features?{query}").json()
    assert [card["feature"] for card in found["cards"]] == features
    assert found["n"] == len(features)


def test_a_random_feature_is_one_nothing_was_found_about(client: TestClient) -> None:
    drawn = {
        client.get(f"/api/features?random={n}").json()["cards"][0]["feature"] for n in range(9)
    }
    assert len(drawn) > 1
    assert LOUD not in drawn


@pytest.mark.parametrize(
    "query", ["ids=a", "ids=-1", "ids=", f"ids={D_SAE}", "q=99999", "random=x"]
)
def test_odd_queries_are_refused_in_words(client: TestClient, query: str) -> None:
    answer = client.get(f"/api/features?{query}")
    assert answer.status_code == 400
    assert len(answer.json()["error"]) > 20


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"max_tokens": 5000}, "max_tokens"),
        ({"features": [{"feature": D_SAE}]}, "outside the SAE"),
        ({"sae": "0123"}, "another SAE"),
    ],
)
def test_bad_requests_are_refused_in_words(
    client: TestClient, changes: dict[str, Any], word: str
) -> None:
    answer = client.post("/api/generate", json=BODY | changes)
    assert answer.status_code == 400
    assert word in answer.json()["error"]


def test_malformed_json_large_bodies_and_other_sites_are_refused(client: TestClient) -> None:
    kind = {"content-type": "application/json"}
    assert client.post("/api/generate", content=b"{", headers=kind).status_code == 400
    large = json.dumps(BODY | {"prompt": "a" * 20_000})
    assert client.post("/api/generate", content=large, headers=kind).status_code == 413
    parts = iter([large[:9_000].encode(), large[9_000:].encode()])
    assert client.post("/api/generate", content=parts, headers=kind).status_code == 413
    foreign = {"origin": "https://evil.example"}
    assert client.post("/api/generate", json=BODY, headers=foreign).status_code == 403
    assert client.get("/api/run", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/api/generate").status_code == 405


def test_an_engine_that_loads_is_waited_for() -> None:
    go = threading.Event()

    def load() -> Any:
        go.wait(60)
        return made_world()

    engine = Engine(load, DemoSettings())
    with TestClient(build_app(engine, engine.settings), base_url=HERE) as client:
        assert client.get("/api/status").json()["state"] == "loading"
        answer = client.post("/api/generate", json=BODY)
        assert answer.status_code == 503
        assert "loaded" in answer.json()["error"]
        go.set()
        until(lambda: client.get("/api/status").json()["state"] == "ready")
        assert client.post("/api/generate", json=BODY).status_code == 200


def test_a_client_that_goes_away_stops_the_text_and_frees_its_place() -> None:
    world = endless(made_world())
    settings = DemoSettings(max_tokens=1500, per_client=1)
    before = hooks_of(world.lm)
    with served(world, settings) as (url, engine), httpx.Client(base_url=url, timeout=60) as client:
        until(lambda: engine.status.state == "ready")
        long = BODY | {"max_tokens": 1500}
        for _ in range(2):  # the second has the place of the first
            with client.stream("POST", "/api/generate", json=long) as answer:
                lines = answer.iter_lines()
                assert answer.status_code == 200
                while '"step"' not in next(lines):
                    pass
                refused = httpx.post(f"{url}api/generate", json=BODY, timeout=60)
                assert refused.status_code == 429
            until(
                lambda: httpx.post(f"{url}api/generate", json=BODY, timeout=60).status_code == 200
            )
        until(lambda: hooks_of(world.lm) == before)


def test_two_clients_at_once_get_their_own_texts() -> None:
    world = endless(made_world())
    with served(world, DemoSettings(gather_s=0.2)) as (url, engine):
        until(lambda: engine.status.state == "ready")
        told: dict[int, list[dict[str, Any]]] = {}

        def ask(seed: int) -> None:
            body = BODY | {"seed": seed, "temperature": 1.0, "max_tokens": 20}
            told[seed] = events(httpx.post(f"{url}api/generate", json=body, timeout=30))

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        texts = {
            s: "".join(e["tokens"][0] or "" for e in told[s] if e["type"] == "step") for s in told
        }
        assert texts[1] != texts[2]
        assert all(found[-1]["type"] == "done" for found in told.values())
