"""What stands before every route: who may ask, how much, and how often.

A page of another site can make a browser send requests to this machine. It cannot read answers, but
it could have the model work, or reach the server under a name of its own (DNS rebinding). So the
Host must be one of ours, a request that says where it comes from must come from our own page, and
what starts work must be JSON, which another site cannot send unasked.
"""

from __future__ import annotations

import ipaddress
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from affectlens.demo.settings import DemoSettings

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
_OWN_NAMES = ("127.0.0.1", "localhost", "::1")


class RefusedError(Exception):
    """A request that is not served, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Guard:
    """ASGI middleware: Host, Origin, content type and size of a request; headers of the answer.

    Args:
        app: what is guarded.
        settings: the limits.
        names: host names the server is reached by beside those of this machine.
        remote: serve other machines too; then any address in numbers is a valid Host.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: DemoSettings,
        names: Iterable[str] = (),
        remote: bool = False,
    ) -> None:
        self.app, self.settings, self.remote = app, settings, remote
        self.names = {*_OWN_NAMES, *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or refuse it in words."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, self._limited(receive), guarded)
        except RefusedError as refused:
            if started:
                raise
            answer = JSONResponse({"error": str(refused)}, refused.status)
            await answer(scope, receive, guarded)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._ours(hosts[0]):
            raise RefusedError(
                421, "this server answers to its own address only; open the address it printed"
            )
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        foreign = origin is not None and not _same(origin, hosts[0])
        if foreign or (site == "cross-site" and scope["method"] != "GET"):
            raise RefusedError(403, "this request comes from another site's page and is refused")
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise RefusedError(415, "the request must be of type application/json")
        size = headers.get("content-length", "0")
        if not size.isdecimal() or int(size) > self.settings.max_body:
            raise _too_large(self.settings.max_body)

    def _ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name = (parts.hostname or "").lower()
            _ = parts.port
        except ValueError:
            return False
        if parts.username is not None or parts.path or parts.query or parts.fragment:
            return False
        return name in self.names or (self.remote and _is_address(name))

    def _limited(self, receive: Receive) -> Receive:
        seen = 0

        async def read() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.settings.max_body:
                raise _too_large(self.settings.max_body)
            return message

        return read


def _too_large(limit: int) -> RefusedError:
    return RefusedError(413, f"the request is larger than {limit:,} bytes; shorten the opening")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(origin: str, host: str) -> bool:
    return origin.lower() in (f"http://{host}".lower(), f"https://{host}".lower())


class RateLimit:
    """How much one address may ask for: so many at once, and so many in a minute."""

    def __init__(self, settings: DemoSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._active: dict[str, int] = defaultdict(int)
        self._recent: dict[str, deque[float]] = defaultdict(deque)

    def take(self, client: str) -> Callable[[], None]:
        """Count one request; call what is returned when it has ended.

        Raises:
            RefusedError: 429, too many.
        """
        now = self._clock()
        self._forget(now)
        if self._active[client] >= self._settings.per_client:
            raise RefusedError(
                429,
                f"{self._settings.per_client} texts are in work for you already; stop one, or "
                "wait until it is done",
            )
        if len(self._recent[client]) >= self._settings.per_minute:
            raise RefusedError(
                429, f"more than {self._settings.per_minute} texts in a minute; wait a little"
            )
        self._recent[client].append(now)
        self._active[client] += 1
        given_back = False

        def give_back() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                self._active[client] -= 1

        return give_back

    def _forget(self, now: float) -> None:
        for client in list(self._recent):
            times = self._recent[client]
            while times and times[0] <= now - 60:
                times.popleft()
            if not times and not self._active.get(client):
                del self._recent[client]
                self._active.pop(client, None)
