"""Children on trio.

`trio.lowlevel.open_process` starts the child from a worker thread. That is a thread hop per call, and
the end of that thread, ten idle seconds later, would be the end of the child's parent for ``PR_SET_PDEATHSIG``.
So the same `subprocess.Popen` is called where we are, as asyncio does, and waited for by pidfd, as trio does.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from .request import PidfdChild

if TYPE_CHECKING:
    from .request import Request


async def start(request: Request) -> PidfdChild:
    """Start a child; see `Request`."""
    stdin, stdout, stderr = request.descriptors.stdio
    process = subprocess.Popen(  # noqa: ASYNC220
        request.argv,
        executable=request.executable,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=request.env,
        cwd=request.cwd,
        pass_fds=request.descriptors.kept,
        process_group=0 if request.process_group else None,
    )
    return PidfdChild(process.pid, process.wait)
