"""A code sandbox: programs over HTTP, each in a fresh container, and a page to watch them and type into them.

    make sandbox
    python examples/sandbox --port 8080

It prints the address of its page, token and all. Without the page:

    curl -N -H "Authorization: Bearer $TOKEN" -d '{"program": "echo hello; exit 3"}' http://127.0.0.1:8080/runs

Containers have no network, no files of the host, no other user's rights, and limits of memory, CPU, processes, time and
output. It listens on loopback; to let others in, put a proxy with TLS before it and name its address by --origin.
SIGTERM and Ctrl-C end it, and leave no container. Needs aiohttp, and root or cgroups of one's own.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import re
import secrets
import shlex
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from runs import Limits, Runs
from service import Service, missing_libraries

from runc_async import Runc, RuncError, SealedExecutor, Subreaper, busybox_rootfs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

logger = logging.getLogger("sandbox")

SHUTDOWN = 5.0
"""Seconds that open requests have to end in, after the containers are gone."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="sandbox", description="Run programs from strangers in containers, over HTTP, with a page."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0 is any free one (default: %(default)s)")
    parser.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="a proxy's: https://sandbox.example"
    )
    parser.add_argument("--token-file", type=Path, help="else $SANDBOX_TOKEN is the token, or else a new one is made")
    parser.add_argument("--runtime", default="runc", help="path or name (default: %(default)s)")
    parser.add_argument("--state", type=Path, help="directory of its containers; what it left there when it was killed "
                        "is removed at the next start (default: a temporary one)")  # fmt: skip
    parser.add_argument("--rootfs", type=Path, help="the containers' root file system (default: busybox)")
    parser.add_argument("--interpreter", default="sh -c", help="what gets the program (default: %(default)s)")
    parser.add_argument("--shell", default="sh", help="what a terminal runs (default: %(default)s)")
    parser.add_argument("--running", type=int, default=8, help="most runs at once (default: %(default)s)")
    parser.add_argument("--kept", type=int, default=50, help="most ended runs to remember (default: %(default)s)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between samples (default: %(default)s)")
    parser.add_argument("--prefix", default=f"sandbox-{os.getpid()}", help="of the containers' ids")
    most = parser.add_argument_group("the most that one run may ask for")
    most.add_argument("--memory", type=float, default=256, metavar="MIB", help="(default: %(default)s)")
    most.add_argument("--cpus", type=float, default=1.0, help="(default: %(default)s)")
    most.add_argument("--pids", type=int, default=128, help="processes and threads (default: %(default)s)")
    most.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="(default: %(default)s)")
    most.add_argument("--output", type=int, default=1024, metavar="KIB", help="(default: %(default)s)")
    return parser.parse_args()


def chosen_token(options: argparse.Namespace) -> tuple[str, bool]:
    """The token, and whether it was made here."""
    given = os.environ.pop("SANDBOX_TOKEN", "")  # the runtime has no use for it
    if options.token_file:
        given = options.token_file.read_text().strip()
    if given and not re.fullmatch(r"[A-Za-z0-9_-]{16,}", given):
        raise ValueError("the token must be 16 or more letters, digits, dashes and underscores")
    return given or secrets.token_urlsafe(24), not given


def state_directory(options: argparse.Namespace, stack: contextlib.ExitStack) -> Path:
    """Where the containers are, for this service alone."""
    if options.state is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sandbox-")))
    state: Path = options.state.absolute()
    state.mkdir(parents=True, exist_ok=True)
    lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{state} is another service's") from None
    return state


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    options = arguments()
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("runc_async.runtime").setLevel(logging.CRITICAL)  # the reason of a failure is in its exception
    with contextlib.ExitStack() as stack:
        token, made = chosen_token(options)
        state = state_directory(options, stack)
        listener = stack.enter_context(socket.create_server((options.host, options.port)))
        port = listener.getsockname()[1]
        names = {options.host, "localhost"} if options.host.startswith("127.") else {options.host}
        origins = [*(f"http://{name}:{port}" for name in names), *options.origin]
        executor = stack.enter_context(SealedExecutor.open(options.runtime))  # whatever an upgrade does meanwhile
        monitor = Subreaper()
        runs = Runs(
            Runc(executor, root=state / "containers", monitor=monitor),
            options.rootfs or state / "rootfs",
            bundles=state / "bundles",
            interpreter=shlex.split(options.interpreter),
            shell=shlex.split(options.shell),
            most=Limits(options.memory, options.cpus, options.pids, options.timeout, options.output),
            running=options.running,
            kept=options.kept,
            interval=options.interval,
            prefix=options.prefix,
        )

        async def containers(app: web.Application) -> AsyncIterator[None]:
            async with monitor:
                # Before anything is removed this raises PermissionError if another user can have prepared `state`.
                for left in await runs.runc.list():
                    async with runs.runc.attach(left.id, delete=True):
                        logger.warning("removing %s, which a killed service left", left.id)
                shutil.rmtree(state / "bundles", ignore_errors=True)
                (state / "bundles").mkdir()
                if not runs.rootfs.exists():
                    await busybox_rootfs(runs.rootfs)
                await runs.check()
                print(f"sandbox: http://{options.host}:{port}/" + (f"#token={token}" if made else ""), flush=True)
                if problem := missing_libraries():
                    print(f"sandbox: {problem}", flush=True)
                yield
                await runs.aclose()

        app = Service(runs, token, origins).app()
        app.cleanup_ctx.append(containers)
        web.run_app(
            app, sock=listener, print=None, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN
        )


if __name__ == "__main__":
    try:
        main()
    except (RuncError, OSError, ValueError) as exc:
        sys.exit(f"sandbox: {exc}\nsandbox: `python -m runc_async doctor` tells what containers need here")
