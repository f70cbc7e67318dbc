"""The sandbox over HTTP: who may ask, what may be asked, and how it is answered.

    POST /runs                  {"program": "echo hi", "limits": {"memory": 64, "timeout": 10}}: its output, as it
                                comes; leaving kills it. With "detach": true it is described at once, and runs on.
    GET  /runs                  all of them
    GET  /runs/ID               one, with its program
    GET  /runs/ID/logs          its output until now; with ?follow=1 until its end
    GET  /runs/ID/stats         its samples, until its end
    POST /runs/ID/kill          it has ended when this is answered
    GET  /runs/ID/terminal      WebSocket: a shell in its container. Binary messages are the terminal's bytes, text
                                messages its size: {"rows": 24, "columns": 80}
    GET  /live                  WebSocket: all of them with their new samples, whenever something changes
    GET  /                      the page

Streams are lines of JSON. All but the page's own files need the token: `Authorization: Bearer TOKEN`, or, for
WebSockets, which have no headers in a browser, the subprotocols "sandbox" and "bearer.TOKEN".
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from aiohttp import WSMsgType, web
from runs import Limits, RefusedError, Run, Runs

from runc_async import RuncError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable

    from aiohttp.typedefs import Handler

    from runc_async import Console

PROTOCOL = "sandbox"
FOLDER = Path(__file__).parent / "page"
FILES = {
    "/": FOLDER / "index.html",
    "/page.css": FOLDER / "page.css",
    "/page.js": FOLDER / "page.js",
}
LIBRARIES = {
    "/lib/xterm.js": FOLDER / "node_modules/@xterm/xterm/lib/xterm.mjs",
    "/lib/xterm.css": FOLDER / "node_modules/@xterm/xterm/css/xterm.css",
    "/lib/addon-fit.js": FOLDER / "node_modules/@xterm/addon-fit/lib/addon-fit.mjs",
    "/lib/uplot.js": FOLDER / "node_modules/uplot/dist/uPlot.esm.js",
    "/lib/uplot.css": FOLDER / "node_modules/uplot/dist/uPlot.min.css",
}
HEADERS = {
    "Cache-Control": "no-store",
    # xterm.js writes its colours into style elements.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
BODY = 64 << 10
"""The most bytes of a request, and of a WebSocket message."""
MOST = {"terminals": 8, "streams": 64}
"""How many of these may be open at once."""
PAUSE = 0.1
"""The least seconds between two messages of /live."""
MOST_CELLS = 500
"""The most rows, and columns, of a terminal."""

encode = msgspec.json.Encoder().encode


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /runs."""

    program: str
    limits: dict[str, float] = {}
    detach: bool = False


def missing_libraries() -> str | None:
    """A word on what the page lacks, and how to get it."""
    if all(path.exists() for path in LIBRARIES.values()):
        return None
    return (
        "no plots and no terminal: xterm.js and uPlot are not there; get them with `.ci/setup page`, or with npm: "
        f"npm install --no-package-lock --prefix {FOLDER}"
    )


class Service:
    """The handlers, and what they share.

    :param runs: what is run.
    :param token: who has it may ask.
    :param origins: where the page may come from, such as ``http://127.0.0.1:8080``; their hosts are the only ones that
        are answered, so that no name that somebody points at this address (DNS rebinding) reaches the service.
    """

    def __init__(self, runs: Runs, token: str, origins: Iterable[str]) -> None:
        self.runs = runs
        self.token = token.encode()
        self.origins = frozenset(origins)
        self.hosts = {origin.partition("://")[2] for origin in self.origins}
        self.open: Counter[str] = Counter()
        self.sockets: set[web.WebSocketResponse] = set()

    def app(self) -> web.Application:
        """The application; its clean-up leaves no container."""
        app = web.Application(middlewares=[answered_in_json, self.guard], client_max_size=BODY)
        app.add_routes(
            [
                web.post("/runs", self.post),
                web.get("/runs", self.list),
                web.get("/runs/{id}", self.get),
                web.get("/runs/{id}/logs", self.logs),
                web.get("/runs/{id}/stats", self.stats),
                web.post("/runs/{id}/kill", self.kill),
                web.get("/runs/{id}/terminal", self.terminal),
                web.get("/live", self.live),
                *(web.get(path, self.file) for path in (*FILES, *LIBRARIES)),
            ]
        )
        app.on_response_prepare.append(self.dress)
        app.on_shutdown.append(self.shut_down)
        return app

    # -- who may ask -------------------------------------------------------------------------------------

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer only our own page and who has the token."""
        origin = request.headers.get("Origin")
        if request.host not in self.hosts:
            raise web.HTTPMisdirectedRequest(text=f"this is not {request.host}")
        if origin is not None and origin not in self.origins:
            raise web.HTTPForbidden(text=f"not for pages of {origin}")
        if request.path not in FILES and request.path not in LIBRARIES and not self.is_friend(request):
            raise web.HTTPUnauthorized(text="a token is needed", headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    def is_friend(self, request: web.Request) -> bool:
        """Whether a request has the token. The comparison takes as long for every wrong one."""
        offered = request.headers.get("Authorization", "").removeprefix("Bearer ")
        for protocol in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
            if protocol.strip().startswith("bearer."):
                offered = protocol.strip().removeprefix("bearer.")
        return hmac.compare_digest(offered.encode(errors="surrogateescape"), self.token)

    @contextlib.contextmanager
    def counted(self, what: str) -> Generator[None]:
        """One more of something that there may only be so many of."""
        if self.open[what] >= MOST[what]:
            raise web.HTTPTooManyRequests(
                text=f"{MOST[what]} {what} at once are the most", headers={"Retry-After": "1"}
            )
        self.open[what] += 1
        try:
            yield
        finally:
            self.open[what] -= 1

    def found(self, request: web.Request) -> Run:
        """The run that a path names."""
        try:
            return self.runs.all[request.match_info["id"]]
        except KeyError:
            raise web.HTTPNotFound(text=f"there is no run {request.match_info['id']}") from None

    # -- runs --------------------------------------------------------------------------------------------

    async def post(self, request: web.Request) -> web.StreamResponse:
        """A new one."""
        try:
            wanted = msgspec.json.decode(await request.read(), type=Request)
            allowed = msgspec.to_builtins(self.runs.within(Limits()))
            limits = msgspec.convert({**allowed, **wanted.limits}, Limits, strict=False)
            run = self.runs.start(wanted.program, limits)
        except ValueError as exc:  # msgspec's are, too
            raise web.HTTPBadRequest(text=str(exc)) from exc
        except RefusedError as exc:
            raise web.HTTPTooManyRequests(text=str(exc), headers={"Retry-After": "1"}) from exc
        if wanted.detach:
            return answer(run.described(), status=201, location=f"/runs/{run.id}")
        try:
            return await self.lines(request, self.story(run), status=201, location=f"/runs/{run.id}")
        finally:  # also when its client has gone
            run.stop("its client went away")

    async def story(self, run: Run) -> AsyncIterator[Any]:
        """What somebody who waits for a run is told."""
        yield {"run": run.id}
        async for chunk in run.chunks():
            yield chunk._asdict()
        yield run.described()

    async def list(self, request: web.Request) -> web.Response:
        """All of them, the newest first."""
        return answer(self.overview([run.described() for run in reversed(self.runs.all.values())]))

    def overview(self, described: Any) -> dict[str, Any]:
        """What is told of the service."""
        return {
            "runs": described,
            "active": len(self.runs.active()),
            "most": {"running": self.runs.running, **msgspec.to_builtins(self.runs.most)},
            "statistics": self.runs.has_statistics,
        }

    async def get(self, request: web.Request) -> web.Response:
        """One."""
        run = self.found(request)
        return answer({**run.described(), "program": run.program})

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """Its output."""
        run = self.found(request)
        if request.query.get("follow", "0") not in ("", "0"):
            return await self.lines(request, (chunk._asdict() async for chunk in run.chunks()))
        text = b"".join(encode(chunk._asdict()) + b"\n" for chunk in run.output)
        return web.Response(body=text, content_type="application/x-ndjson")

    async def stats(self, request: web.Request) -> web.StreamResponse:
        """Its samples."""
        run = self.found(request)
        if not self.runs.has_statistics:
            raise web.HTTPNotImplemented(text="this runtime has no statistics: runc has, crun has not")
        return await self.lines(request, (sample._asdict() async for sample in run.statistics()))

    async def kill(self, request: web.Request) -> web.Response:
        """Its end."""
        run = self.found(request)
        run.stop("killed")
        while run.state != "ended":
            await run.changed.wait()
        return answer(run.described())

    async def lines(
        self, request: web.Request, values: AsyncIterator[Any], *, status: int = 200, location: str | None = None
    ) -> web.StreamResponse:
        """A stream of lines of JSON; a slow reader slows nobody but itself."""
        response = web.StreamResponse(status=status)
        response.content_type = "application/x-ndjson"
        if location:
            response.headers["Location"] = location
        with self.counted("streams"), contextlib.suppress(ConnectionResetError):  # the reader has gone
            await response.prepare(request)
            async for value in values:
                await response.write(encode(value) + b"\n")
            await response.write_eof()
        return response

    # -- WebSockets --------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def socket(self, request: web.Request) -> AsyncGenerator[web.WebSocketResponse]:
        """A WebSocket, which is closed at the latest when the service stops."""
        socket = web.WebSocketResponse(protocols=(PROTOCOL,), heartbeat=20, max_msg_size=BODY)
        await socket.prepare(request)
        self.sockets.add(socket)
        try:
            yield socket
        finally:
            self.sockets.discard(socket)
            await socket.close()

    async def terminal(self, request: web.Request) -> web.StreamResponse:
        """A shell."""
        run = self.found(request)
        wants_socket(request)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self.counted("terminals"))
            try:
                console = await stack.enter_async_context(self.runs.terminal(run))
            except (RefusedError, RuncError) as exc:
                raise web.HTTPConflict(text=str(exc)) from exc
            socket = await stack.enter_async_context(self.socket(request))
            shown = asyncio.create_task(self.show(console, socket))
            try:
                await self.type(console, socket)
            finally:
                shown.cancel()
                await asyncio.gather(shown, return_exceptions=True)
        return socket

    async def show(self, console: Console, socket: web.WebSocketResponse) -> None:
        """What the terminal prints, to the browser."""
        with contextlib.suppress(ConnectionResetError):
            async for data in console:
                await socket.send_bytes(data)
        await socket.close()

    async def type(self, console: Console, socket: web.WebSocketResponse) -> None:
        """What the browser sends, to the terminal."""
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for message in socket:
                if message.type == WSMsgType.BINARY:
                    await console.send(message.data)
                elif message.type == WSMsgType.TEXT:
                    try:
                        size = msgspec.json.decode(message.data, type=dict[str, int])
                        rows, columns = size["rows"], size["columns"]
                        if max(rows, columns) > MOST_CELLS:
                            raise ValueError(f"{rows} by {columns} is too large")
                        console.resize(rows, columns)
                    except (ValueError, KeyError) as exc:
                        await socket.close(code=1008, message=str(exc).encode()[:100])

    async def live(self, request: web.Request) -> web.StreamResponse:
        """The list, whenever it changes, with the samples that are new."""
        wants_socket(request)
        with self.counted("streams"):
            async with self.socket(request) as socket:
                reader = asyncio.create_task(self.ignore(socket))
                seen: dict[str, int] = {}
                try:
                    while not reader.done():
                        changed = self.runs.changed
                        described = [
                            {**run.described(), "samples": run.sampled_since(seen.get(run.id, 0))}
                            for run in reversed(self.runs.all.values())
                        ]
                        seen = {run.id: run.sampled for run in self.runs.all.values()}
                        await socket.send_bytes(encode(self.overview(described)))
                        await asyncio.sleep(PAUSE)
                        waiting = asyncio.create_task(changed.wait())
                        await asyncio.wait({reader, waiting}, return_when=asyncio.FIRST_COMPLETED)
                        waiting.cancel()
                except ConnectionResetError:
                    pass
                finally:
                    reader.cancel()
                    await asyncio.gather(reader, return_exceptions=True)
            return socket

    async def ignore(self, socket: web.WebSocketResponse) -> None:
        """Read until the browser closes; it says nothing else."""
        async for _ in socket:
            pass

    # -- the page, and the end ---------------------------------------------------------------------------

    async def file(self, request: web.Request) -> web.StreamResponse:
        """One of the page's files."""
        path = {**FILES, **LIBRARIES}[request.path]
        if not path.exists():
            raise web.HTTPNotFound(text=missing_libraries())
        return web.FileResponse(path)

    async def dress(self, request: web.Request, response: web.StreamResponse) -> None:
        """The headers of every response."""
        response.headers.update(HEADERS)

    async def shut_down(self, app: web.Application) -> None:
        """End all that is open."""
        await self.runs.aclose()
        for socket in [*self.sockets]:
            await socket.close(code=1001, message=b"the service stops")


@web.middleware
async def answered_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refusals, also aiohttp's own, as JSON."""
    try:
        return await handler(request)
    except web.HTTPException as exc:
        if exc.status < 400:
            raise
        headers = {
            name: exc.headers[name] for name in ("Allow", "Retry-After", "WWW-Authenticate") if name in exc.headers
        }
        return web.Response(
            status=exc.status, body=encode({"error": exc.text}), headers=headers, content_type="application/json"
        )


def wants_socket(request: web.Request) -> None:
    """Refuse a plain request before anything is started for it."""
    if not web.WebSocketResponse(protocols=(PROTOCOL,)).can_prepare(request):
        raise web.HTTPUpgradeRequired(text="this is a WebSocket")


def answer(value: Any, *, status: int = 200, location: str | None = None) -> web.Response:
    """A value as JSON."""
    headers = {"Location": location} if location else None
    return web.Response(body=encode(value), status=status, headers=headers, content_type="application/json")
