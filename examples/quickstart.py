"""The shortest useful thing: a program in a container of its own, its output, its status.

    python examples/quickstart.py

Needs runc and a static busybox (Debian, Ubuntu: apt-get install runc busybox-static). Not root: it is rootless then.
"""

from __future__ import annotations

import os
import tempfile

import anyio

from runc_async import Runc, busybox_rootfs, default_spec, temporary_bundle


async def main() -> None:
    """One container, two programs in it."""
    args = ["sleep", "60"]
    # An ordinary user needs cgroups of their own for limits: see docs/howto/rootless.md.
    spec = default_spec(args) if os.geteuid() else default_spec(args, memory="64M", cpus=0.5, pids=32)
    with tempfile.TemporaryDirectory() as folder:
        runc = Runc(root=f"{folder}/state")
        rootfs = await busybox_rootfs(f"{folder}/rootfs")
        async with (
            temporary_bundle(spec, rootfs=rootfs) as bundle,
            runc.container(f"quickstart-{os.getpid()}", bundle) as container,
        ):
            await container.start()
            for program in (["uname", "-sn"], ["sh", "-c", "wc -c; exit 3"]):
                result = await container.run(program, input="hello")
                print(program, "ended with", result.status, "and said", result.stdout.decode().strip())


anyio.run(main)
