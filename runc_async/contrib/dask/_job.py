"""What travels: a job to a worker, its output and its result back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from ..._errors import RuncError
from ..._jobs import job as jobs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..._jobs.job import Job

__all__ = ["PLUGIN", "JobCancelledError", "JobLostError", "Output", "Result", "Seen", "find_needs"]

PLUGIN = "runc-async"
"""The name of the plugins, and of the annotation of the tasks that are jobs."""


class Result(jobs.Result, frozen=True, kw_only=True):
    """How a job ended: as `runc_async.Result`, and besides

    :ivar worker: the address of the worker.
    :ivar attempt: 1, or more if it had begun before on workers that were lost.
    """

    worker: str
    attempt: int


def find_needs(job: Job, resources: Mapping[str, float] | None = None) -> dict[str, float]:
    """Say what a worker must have free to run a job.

    :param resources: what it needs besides, or in place of what its specification says.
    """
    limits = job.spec.get("linux", {}).get("resources", {})
    cpu = limits.get("cpu", {})
    quota, period = cpu.get("quota", 0), cpu.get("period", 0)
    memory = limits.get("memory", {}).get("limit", 0)
    needs = {"containers": 1.0}
    if quota > 0 and period > 0:  # negative ones mean no limit
        needs["cpus"] = quota / period
    if memory > 0:
        needs["memory"] = float(memory)
    return {**needs, **(resources or {})}


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a running job's output.

    :ivar stream: where it was written.
    :ivar data: what was written.
    :ivar dropped: how many bytes before it are lost, since more than `Job.output_limit` had come
        meanwhile (with `Job.tail`).
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
    """The workers that ran the job were lost, more often than ``reruns`` allows."""


class JobCancelledError(RuncError):
    """The job was cancelled: by `Submitted.cancel`, or since the scheduler was lost."""
