"""What travels: a job to a worker, its output and its result back."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime  # noqa: TC003 (msgspec reads it)
from typing import TYPE_CHECKING, Literal

import msgspec

from ..._bundle.spec import Spec  # noqa: TC001 (read by documentation tools)
from ..._cli.options import StrPath  # noqa: TC001 (read by documentation tools)
from ..._errors import RuncError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PLUGIN", "Job", "JobCancelledError", "JobLostError", "Output", "Result", "Seen"]

PLUGIN = "runc-async"
"""The name of the plugins, and of the annotation of the tasks that are jobs."""


@dataclass(frozen=True, slots=True)
class Job:
    """One container, to be run to its end on some worker.

    :param spec: its ``config.json``, as `default_spec` makes it. Its limits of memory and CPU are also what it needs.
    :param rootfs: the path, on the worker's host, of its root file system.
    :param name: letters, digits, dots, dashes and underscores: the beginning of the container's id, and the name in the
        dashboard.
    :param input: what it reads from stdin; None is ``/dev/null``.
    :param timeout: seconds that it may run; then it is killed. None means no limit.
    :param output_limit: how many bytes are kept of stdout, and of stderr: the last ones.
    :param reruns: how often it may run again when the worker that runs it is lost.
    :param writable: as in `Bundle.create`.
    :param resources: what it needs besides, by the names that the workers declare (``--resources``); or in place of
        what is taken from `spec`: ``containers`` (1), ``memory`` (bytes), ``cpus``.
    :raises ValueError: a value that cannot be right.
    """

    spec: Spec
    rootfs: StrPath
    _: KW_ONLY
    name: str = "job"
    input: bytes | None = None
    timeout: float | None = None
    output_limit: int = 1 << 16
    reruns: int = 2
    writable: bool = False
    resources: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", self.name):
            raise ValueError(f"name must be letters, digits, dots, dashes and underscores, not {self.name!r}")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout must be positive, not {self.timeout}")
        for what in ("output_limit", "reruns"):
            if getattr(self, what) < 0:
                raise ValueError(f"{what} must not be negative: {getattr(self, what)}")

    def needs(self) -> dict[str, float]:
        """What a worker must have free to run it."""
        limits = self.spec.get("linux", {}).get("resources", {})
        cpu = limits.get("cpu", {})
        quota, period = cpu.get("quota", 0), cpu.get("period", 0)
        memory = limits.get("memory", {}).get("limit", 0)
        needs = {"containers": 1.0}
        if quota > 0 and period > 0:  # negative ones mean no limit
            needs["cpus"] = quota / period
        if memory > 0:
            needs["memory"] = float(memory)
        return {**needs, **self.resources}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a job's container ended.

    :ivar status: its exit status, 128 + N when signal N ended it.
    :ivar timed_out: whether it was killed because its time was over.
    :ivar stdout: the last bytes that it wrote there, `Job.output_limit` at most.
    :ivar stderr: the same of stderr.
    :ivar stdout_dropped: how many bytes came before these, and were not kept.
    :ivar stderr_dropped: the same of stderr.
    :ivar started: when it was started, by the worker's clock, in UTC.
    :ivar ended: when it had ended, likewise.
    :ivar cpu: the CPU time that it used, in seconds; None where no cgroup counts it.
    :ivar memory: the most memory that it used, in bytes; None where no cgroup counts it. The runtime's own init, some
        megabytes, is in it.
    :ivar worker: the address of the worker.
    :ivar attempt: 1, or more if it had begun before on workers that were lost.
    """

    status: int | None
    timed_out: bool
    stdout: bytes
    stderr: bytes
    stdout_dropped: int
    stderr_dropped: int
    started: datetime
    ended: datetime
    cpu: float | None
    memory: int | None
    worker: str
    attempt: int


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a running job's output.

    :ivar stream: where it was written.
    :ivar data: what was written.
    :ivar dropped: how many bytes before it are lost, since more than `Job.output_limit` had come meanwhile.
    :ivar attempt: as in `Result`: when it grows, the job has begun again, and so does its output.
    """

    stream: Literal["stdout", "stderr"]
    data: bytes
    dropped: int
    attempt: int


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """How far somebody who follows a job has come: in its stdout and stderr, in bytes from the beginning."""

    attempt: int = 0
    offsets: tuple[int, int] = (0, 0)


class JobLostError(RuncError):
    """The workers that ran the job were lost, more often than `Job.reruns` allows."""


class JobCancelledError(RuncError):
    """The job was cancelled: by `Submitted.cancel`, or since the scheduler was lost."""
