"""Children by ``posix_spawn``, the one road that puts descriptors under chosen numbers.

`os.posix_spawn` says all that is needed but a working directory; with one, the same call is made on the C
library (``posix_spawn_file_actions_addchdir_np``).
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from .request import PidfdChild, reap

if TYPE_CHECKING:
    from collections.abc import Callable

    from .request import Request

# CPython ignores these; a child starts with them as the system has them (subprocess: restore_signals).
RESTORED = [signal.SIGPIPE, signal.SIGXFSZ]

# What `os.posix_spawn` takes for it.
OWN_ENVIRONMENT = None if sys.version_info >= (3, 13) else os.environ


async def start(request: Request) -> PidfdChild:
    """Start a child; see `Request`. Sources must lie above all targets, as `Leases` makes them."""
    stdio, targets, kept = request.descriptors
    pairs = [*enumerate((*stdio, *targets)), *((fd, fd) for fd in kept)]
    # dup2 onto itself clears close-on-exec in the child: glibc since 2.29, musl since 1.1.24.
    actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in pairs]
    spawn: Callable[..., int] = os.posix_spawn
    env = OWN_ENVIRONMENT if request.env is None else request.env
    if request.cwd is not None:
        from .._linux.libc import posix_spawn

        spawn = functools.partial(posix_spawn, request.cwd)
    options: dict[str, Any] = {"setpgroup": 0} if request.process_group else {}
    spare = os.dup(stdio[0])  # keeps a number free for the pidfd, so that a started child can be watched
    try:
        pid = spawn(request.executable, request.argv, env, file_actions=actions, setsigdef=RESTORED, **options)
    finally:
        os.close(spare)
    return PidfdChild(pid, functools.partial(reap, pid))
