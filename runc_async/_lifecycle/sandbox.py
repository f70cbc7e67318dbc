"""Processes that have no pids on the host: of a runtime with a kernel of its own, such as gVisor's runsc.

On the host there is only a process that waits for each; killed there, the process inside runs on. So it is signalled by
the runtime (``kill --pid``), with the pid inside that the runtime wrote for the call (``--internal-pid-file``).
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

from .._errors import CommandError
from .._models import parse_top

if TYPE_CHECKING:
    from .runner import Runner

__all__ = ["kill_tree_inside", "signal_inside"]

MOST_LOOKS = 10
"""How often the processes are looked at until no look finds a new one."""


async def signal_inside(runner: Runner, id: str, pid: int, number: int) -> None:
    """Send a signal to one process.

    :param pid: its pid inside.
    :raises ProcessLookupError: it has ended, or its container has.
    """
    try:
        await runner.run("kill", {}, [id, str(number)], [f"--pid={pid}"])
    except CommandError as error:
        raise ProcessLookupError(f"process {pid} of container {id} has ended: {error.message}") from error


async def kill_tree_inside(runner: Runner, id: str, pid: int) -> None:
    """Kill a process and its descendants. They are stopped first, so that none starts another one unseen.

    :param pid: the pid inside of the process.
    """
    stopped: list[int] = []
    try:
        for _ in range(MOST_LOOKS):
            found = [each for each in await _find_tree(runner, id, pid) if each not in stopped]
            if not found:
                break
            for each in found:
                await _try_signal(runner, id, each, signal.SIGSTOP)
            stopped += found
    except CommandError:  # the container has ended
        return
    for each in stopped:
        await _try_signal(runner, id, each, signal.SIGKILL)


async def _try_signal(runner: Runner, id: str, pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        await signal_inside(runner, id, pid, number)


async def _find_tree(runner: Runner, id: str, root: int) -> list[int]:
    """Find a process and its descendants; none if it has ended."""
    outcome = await runner.run("ps", {"format": "table"}, [id])
    table = parse_top(outcome.stdout.decode(errors="replace"))
    pid_at, parent_at = table.headers.index("PID"), table.headers.index("PPID")
    parents = {int(row[pid_at]): int(row[parent_at]) for row in table.processes}
    tree = [root] if root in parents else []
    for pid in tree:
        tree += [child for child, parent in parents.items() if parent == pid and child not in tree]
    return tree
