"""`Job`: a program with all that belongs to it, and how it ended."""

from __future__ import annotations

import copy
import os
import re
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime  # noqa: TC003 (msgspec reads it)
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from .._bundle.mounts import add_inode_limit
from .._cli.options import StrPath  # noqa: TC001 (read by documentation tools)
from .._cli.validation import byte_size, check_type, naming
from .._linux.beneath import parse_name
from .._usage import Usage  # noqa: TC001 (msgspec reads it)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._bundle.spec import Mount, Spec

__all__ = ["Job", "Result", "Verdict"]

LEAST_WORK = 1 << 12  # a page
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Job:
    """A program that runs in a container of its own, with what it needs and what is wanted of it.

    It is plain data: it can be compared, pickled and sent to another machine.

    :param spec: its ``config.json``, as `default_spec` makes it.
    :param rootfs: the directory, on the host, of its root file system.
    :param input: what it reads from stdin; None is ``/dev/null``.
    :param files: what is written below `work_path` before the start: names to bytes, or to a path of the host, of a
        file or a directory. They belong to the owner of the directory, which with `work` is the program's user.
    :param collect: what is brought back from below `work_path` afterwards: names (of a directory: all that is in it) or
        patterns (``*.txt``, ``**/*.log``), 16 MiB at most in all.
    :param work: the size of a tmpfs at `work_path`, in bytes or with a unit (``"64M"``). What is in it counts as memory
        of the container. None mounts nothing.
    :param work_path: the directory in the container, absolute. With `work`, a runtime makes it in the root file system
        if it is missing there.
    :param timeout: seconds of wall-clock time, from the start; then it is killed. None means no limit.
    :param cpu_time: seconds of CPU time of all its processes together, likewise.
    :param output_limit: bytes of stdout, and of stderr, that are kept. More ends the job.
    :param tail: more does not end the job; the last bytes are kept.
    :param writable: as in `Bundle.create`.
    :param name: the beginning of the container's id: letters, digits, dots, dashes and underscores.
    :raises TypeError: a parameter of the wrong type.
    :raises ValueError: a value that cannot be right.
    """

    spec: Spec
    rootfs: StrPath
    _: KW_ONLY
    input: bytes | None = None
    files: Mapping[str, bytes | StrPath] = field(default_factory=dict[str, "bytes | StrPath"])
    collect: Sequence[str] = ()
    work: str | int | None = None
    work_path: str = "/work"
    timeout: float | None = None
    cpu_time: float | None = None
    output_limit: int = 1 << 20
    tail: bool = False
    writable: bool | str | int = False
    name: str = "job"

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name must be letters, digits, dots, dashes and underscores, not {self.name!r}")
        check_type("input", self.input, bytes, None, wanted="bytes")
        if isinstance(self.collect, str | bytes):
            raise TypeError("collect must be a sequence of names, not one string")
        for what in ("timeout", "cpu_time"):
            value = getattr(self, what)
            if value is not None and not value > 0:
                raise ValueError(f"{what} must be a positive number of seconds, not {value!r}")
        if self.output_limit < 0:
            raise ValueError(f"output_limit must not be negative: {self.output_limit}")
        self._check_work()

    def _check_work(self) -> None:
        if self.work is not None:
            with naming("work"):
                if byte_size(self.work) < LEAST_WORK:
                    raise ValueError(f"must be at least {LEAST_WORK} bytes, not {self.work!r}")
        if not self.work_path.startswith("/"):
            raise ValueError(f"work_path must be absolute, not {self.work_path!r}")
        parse_name(self.work_path.lstrip("/") or ".")
        for name in (*self.files, *self.collect):
            parse_name(name)

    def container_spec(self) -> Spec:
        """The specification of its container: `spec`, with a tmpfs at `work_path`."""
        if self.work is None:
            return self.spec
        spec = copy.copy(self.spec)
        user = spec.get("process", {}).get("user", {})
        owner = [f"uid={user.get('uid', 0)}", f"gid={user.get('gid', 0)}"]
        options = ["nosuid", "nodev", "mode=755", f"size={byte_size(self.work)}", *owner]
        mount: Mount = {"destination": self.work_path, "type": "tmpfs", "source": "tmpfs", "options": options}
        add_inode_limit(mount, None)
        spec["mounts"] = [*spec.get("mounts", []), mount]
        return spec


class Verdict(StrEnum):
    """How a job ended. What it was ended for comes first, then a want of memory, then how its program ended."""

    EXITED = "exited"
    """The program ended by itself, with a status."""
    SIGNALED = "signaled"
    """A signal ended the program."""
    TIMED_OUT = "timed out"
    """It ran longer than `Job.timeout`, and was killed."""
    CPU_TIME = "cpu time"
    """Its processes used more than `Job.cpu_time`."""
    OUT_OF_MEMORY = "out of memory"
    """The kernel killed one of its processes for want of memory, which need not have ended the program."""
    OUTPUT_LIMIT = "output limit"
    """It wrote more than `Job.output_limit`."""
    STOPPED = "stopped"
    """`RunningJob.stop` was called, or its pool was left."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended, and what came of it. True if its program exited with status 0.

    :ivar verdict: how it ended.
    :ivar status: the program's exit status as a shell gives it, 128 + N when signal N ended it; None only with a
        ``monitor=`` of the user's that does not know it.
    :ivar reason: how it ended, in one sentence.
    :ivar stdout: what it wrote there, `Job.output_limit` bytes at most.
    :ivar stderr: the same of stderr.
    :ivar stdout_dropped: how many bytes were read from stdout and not kept.
    :ivar stderr_dropped: the same of stderr.
    :ivar started: when it was started, aware, in UTC.
    :ivar ended: when its program had ended, likewise.
    :ivar wall: the seconds between.
    :ivar usage: what it used, from its start on.
    :ivar files: what was collected: names below `Job.work_path` to content.
    :ivar refused: what was not brought back: names, and why.
    """

    verdict: Verdict
    status: int | None
    reason: str
    stdout: bytes
    stderr: bytes
    stdout_dropped: int = 0
    stderr_dropped: int = 0
    started: datetime
    ended: datetime
    wall: float
    usage: Usage
    files: dict[str, bytes] = msgspec.field(default_factory=dict[str, bytes])
    refused: dict[str, str] = msgspec.field(default_factory=dict[str, str])

    def __bool__(self) -> bool:
        return self.verdict is Verdict.EXITED and self.status == 0


def is_host_path(value: bytes | StrPath) -> bool:
    """Whether the value of `Job.files` names a file of the host; else it is the content."""
    return isinstance(value, str | os.PathLike)
