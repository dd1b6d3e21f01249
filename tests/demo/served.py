"""A demo server in this process, on a free port."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from affectlens.demo.app import build_app
from affectlens.demo.engine import Engine
from affectlens.demo.serve import LOCAL, bound
from affectlens.demo.settings import DemoSettings
from affectlens.demo.world import World


@contextmanager
def served(world: World, settings: DemoSettings | None = None) -> Iterator[tuple[str, Engine]]:
    """Serve a world; yields the URL and the engine."""
    settings = settings or DemoSettings()
    engine = Engine(lambda: world, settings)
    app = build_app(engine, settings)
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    with bound(LOCAL, 0) as (sock, url):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        try:
            yield url, engine
        finally:
            server.should_exit = True
            thread.join(15)
            assert not thread.is_alive()
