"""Binds the port, says where the page is, and runs the server until it is interrupted."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from affectlens.data.errors import ConfigError, MachineError
from affectlens.demo.settings import DemoSettings

if TYPE_CHECKING:
    from affectlens.demo.world import World

LOCAL = "127.0.0.1"
_GRACE_S = 2


def is_local(host: str) -> bool:
    """Whether a host is this machine alone."""
    if host.lower() == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def check_host(host: str, *, allow_remote: bool) -> None:
    """Refuse to serve other machines unasked.

    Raises:
        ConfigError: another host than this machine's own, without `allow_remote`.
    """
    if not is_local(host) and not allow_remote:
        raise ConfigError(
            f"--host {host} would let other machines use the model, without a password and "
            "unencrypted; give --allow-remote as well if that is wanted, or leave --host out"
        )


@contextmanager
def bound(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A listening socket, and the URL of the page; port 0 takes a free one.

    Raises:
        MachineError: the port is taken, or the host is not this machine's.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise MachineError(f"{host} is no address of this machine ({error.strerror})") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise MachineError(
            f"{host}:{port} cannot be used ({error.strerror}); give another --port, or 0 for a "
            "free one"
        ) from error
    with sock:
        name = f"[{host}]" if ":" in host else host
        yield sock, f"http://{name}:{sock.getsockname()[1]}/"


def serve(
    load: Callable[[], World],
    sock: socket.socket,
    *,
    settings: DemoSettings | None = None,
    host: str = LOCAL,
    remote: bool = False,
) -> None:
    """Serve the page on a bound socket until the process is interrupted.

    Args:
        load: makes the world, on the engine's thread.
        sock: from `bound`.
        settings: the limits.
        host: the name it was bound by.
        remote: answer to other machines.
    """
    import uvicorn

    from affectlens.demo.app import build_app
    from affectlens.demo.engine import Engine

    settings = settings or DemoSettings()
    app = build_app(Engine(load, settings), settings, names=(host,), remote=remote)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=15,
        limit_concurrency=64,
        ws="none",
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[sock])
