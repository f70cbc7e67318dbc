"""Runs a container on a host that has no runtime: its bytes come from elsewhere, are checked, sealed and executed.

    python examples/no_runtime.py URL SHA256 ROOTFS -- PROGRAM [ARGUMENT …]

URL is where the runtime's binary is (https://, http://, file://), SHA256 the digest that it must have, ROOTFS the
directory of the container's root file system. Nothing is written to the host but the container's own state, and that
is gone afterwards. The exit status is the program's.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import urllib.request

import anyio

from runc_async import ExecutorError, InheritIO, Runc, SealedExecutor, default_spec, temporary_bundle

LIMIT = 200 << 20
"""The most bytes that a runtime may have."""


def fetch(url: str) -> bytes:
    """The bytes at an address."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        data: bytes = answer.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise ValueError(f"{url}: more than {LIMIT} bytes")
    return data


async def main(url: str, sha256: str, rootfs: str, program: list[str]) -> int:
    """Fetch, check, seal, run."""
    data = await anyio.to_thread.run_sync(fetch, url)
    with SealedExecutor.from_bytes(data, sha256=sha256) as executor, tempfile.TemporaryDirectory() as folder:
        del data
        runc = Runc(executor, root=f"{folder}/state")
        version = await runc.version()
        print(f"on this host: {shutil.which('runc') or 'no runc'}; in memory: {version.runtime} {version.version}")
        async with temporary_bundle(default_spec(program), rootfs=rootfs) as bundle:
            return await runc.run(f"no-runtime-{os.getpid()}", bundle, io=InheritIO())


if __name__ == "__main__":
    if len(sys.argv) < 6 or sys.argv[4] != "--":
        sys.exit("usage: no_runtime.py URL SHA256 ROOTFS -- PROGRAM [ARGUMENT ...]")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        sys.exit(anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[5:]))
    except (ExecutorError, OSError, ValueError) as exc:
        sys.exit(f"no_runtime: {exc}")
