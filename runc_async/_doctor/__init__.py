"""Whether containers can be run here, and if not, why: what ``runc-async doctor`` shows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .._client import Runc
from .line import Line
from .machine import (
    check_cgroups,
    check_kernel,
    check_launcher,
    check_proc,
    check_resources,
    check_rootless,
    find_runtime,
)
from .runtime import check_features, check_version, check_vulnerabilities
from .trials import CONTAINER, Trials

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Line", "examine", "runnable"]


def runnable(lines: Sequence[Line]) -> bool:
    """Whether a container was run."""
    return any(line.name == CONTAINER and line.state != "bad" for line in lines)


async def examine(runtime: str | None, flags: Sequence[str] = ()) -> list[Line]:
    """Look at everything, and try everything on real containers.

    :param runtime: the runtime's path or name on ``PATH``; None is runc, or else crun.
    :param flags: global flags of the runtime, as ``Runc(extra_args=)`` takes them.
    """
    path, line = find_runtime(runtime)
    lines = [line]
    tried: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="runc-async-doctor-") as folder:
        if path is None:
            tried = [Line(CONTAINER, "bad", "no runtime was found", "see the line about the runtime")]
        else:
            runc = Runc(path, root=Path(folder, "state"), extra_args=flags)
            version, line = await check_version(runc)
            lines += [line, *check_vulnerabilities(version), await check_features(runc)]
            trials = Trials(Path(folder), path, flags)
            tried = await trials.run_all()
    lines += [check_kernel(), check_proc(), *check_cgroups(), await check_rootless(), check_launcher()]
    return [*lines, *check_resources(), *tried]
