"""The routes: the page, what the run knows, and the stream of two texts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from affectlens.data.errors import AffectLensError
from affectlens.demo.asked import Asked, parse_asked
from affectlens.demo.engine import Engine, NotReadyError, QueueFullError
from affectlens.demo.guards import Guard, RateLimit, RefusedError
from affectlens.demo.settings import OPENINGS, DemoSettings

_PAGE = "index.html"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_BEAT_S = 10.0
"""A comment is sent after so long without an event, so that a closed connection is noticed."""

Handler = Callable[[Request], Awaitable[Response]]


def build_app(
    engine: Engine,
    settings: DemoSettings,
    *,
    names: Iterable[str] = (),
    remote: bool = False,
) -> Guard:
    """The application; it starts the engine with the server and stops it with it.

    Args:
        engine: owns the model.
        settings: the limits.
        names: host names the server is reached by beside those of this machine.
        remote: other machines may use it.
    """
    limit = RateLimit(settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        engine.start()
        yield
        await run_in_threadpool(engine.stop)

    async def status(_: Request) -> Response:
        return JSONResponse(asdict(engine.status))

    async def run(_: Request) -> Response:
        world = engine.world
        names = [] if world.readout is None else list(world.readout.readout.names)
        page = {"limits": settings.shown(), "openings": list(OPENINGS), "readout": names}
        return _json({**world.catalogue.shown(), **page, "no_readout": world.no_readout})

    async def features(request: Request) -> Response:
        return _json(_found(engine, request))

    async def generate(request: Request) -> Response:
        asked = parse_asked(await request.body(), settings)
        give_back = limit.take(request.client.host if request.client else "")
        try:
            return _TextsResponse(engine, asked, give_back)
        except BaseException:
            give_back()
            raise

    routes = [Route(f"/static/{name}", _file(name)) for name in _static_files()]
    routes += [
        Route("/", _file(_PAGE)),
        Route("/api/status", status),
        Route("/api/run", _guarded(run)),
        Route("/api/features", _guarded(features)),
        Route("/api/generate", _guarded(generate), methods=["POST"]),
    ]
    # Outside of everything, so that no answer goes without its headers.
    return Guard(
        Starlette(routes=routes, lifespan=lifespan), settings=settings, names=names, remote=remote
    )


class _TextsResponse(StreamingResponse):
    """Server-sent events of one request; a client that goes away cancels its texts."""

    def __init__(self, engine: Engine, asked: Asked, give_back: Callable[[], None]) -> None:
        super().__init__(self._chunks(), media_type="text/event-stream")
        self._engine, self._give_back = engine, give_back
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._job = engine.submit(asked, self._emit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the last one, or until nobody listens."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._engine.cancel(self._job)
            self._give_back()

    def _emit(self, event: dict[str, Any]) -> None:
        # Once the server's loop is closed there is nobody left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            try:
                event = await asyncio.wait_for(self._events.get(), _BEAT_S)
            except TimeoutError:
                yield b": waiting\n\n"
                continue
            yield f"data: {_dumped(event)}\n\n".encode()
            if event["type"] in ("done", "error"):
                return


def _found(engine: Engine, request: Request) -> dict[str, Any]:
    catalogue, query = engine.world.catalogue, request.query_params
    if "random" in query:
        return {"cards": [asdict(catalogue.any_other(_numbers(query["random"])[0]))], "n": 1}
    if "ids" in query:
        cards = [catalogue.card(number) for number in _numbers(query["ids"])]
        return {"cards": [asdict(card) for card in cards], "n": len(cards)}
    hits, n = catalogue.find(query.get("q", "")[:100])
    return {"cards": [asdict(card) for card in hits], "n": n}


def _numbers(text: str) -> list[int]:
    parts = text.split(",")[:50]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise RefusedError(400, "features are asked for by whole numbers with commas between them")
    return [int(part) for part in parts]


def _guarded(handler: Handler) -> Handler:
    """The handler, with errors of ours as JSON in words."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except (NotReadyError, QueueFullError) as error:
            return JSONResponse({"error": str(error)}, 503, {"retry-after": "2"})
        except RefusedError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except AffectLensError as error:
            return JSONResponse({"error": str(error)}, 400)

    return handle


def _static_files() -> list[str]:
    return sorted(p.name for p in files("affectlens.demo").joinpath("static").iterdir())


def _file(name: str) -> Handler:
    kind = _KINDS[name[name.rindex(".") :]]
    body = files("affectlens.demo").joinpath("static", name).read_bytes()

    async def serve(_: Request) -> Response:
        return Response(body, media_type=kind)

    return serve


def _json(value: Any) -> Response:
    return Response(_dumped(value), media_type="application/json")


def _dumped(value: Any) -> str:
    # In ASCII, because a token can hold half of a surrogate pair.
    return json.dumps(value, allow_nan=False, ensure_ascii=True)
