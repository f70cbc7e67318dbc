"""The verdict matrix: what programs do, and what their results say."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from runc_async import Verdict

from .._cgroups import VERSION_2, needs_controllers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runc_async import Job, Runc

pytestmark = pytest.mark.anyio

OOM_RUNS = int(os.environ.get("RUNC_ASYNC_OOM_RUNS", "10"))
"""How often a program uses memory quickly; `make soak`: 100."""
BURN = "while :; do :; done"
EAT = "dd if=/dev/zero of=/dev/null bs=64M count=1"
LONG = 30.0
"""Seconds; no test waits so long for something that happens."""


class Case(NamedTuple):
    """A program, and what is to be said of it.

    :ivar keywords: of the job.
    :ivar controllers: of cgroups, without which its limit cannot be.
    """

    script: str
    verdict: Verdict
    status: int | None = None
    keywords: Mapping[str, Any] = MappingProxyType({})
    controllers: tuple[str, ...] = ()


CASES = {
    "exits with 0": Case("exit 0", Verdict.EXITED, 0),
    "exits with 1": Case("exit 1", Verdict.EXITED, 1),
    "exits with 139": Case("exit 139", Verdict.EXITED, 139),
    "a child aborts": Case("sh -c 'kill -ABRT $$'; exit $?", Verdict.EXITED, 134),
    "a child has a segmentation fault": Case("sh -c 'kill -SEGV $$'; exit $?", Verdict.EXITED, 139),
    "tries to kill itself, as PID 1": Case("kill -KILL $$; exit 3", Verdict.EXITED, 3),
    "forks without end": Case(
        "f() { f | f & }; f; sleep 1; exit 0", Verdict.EXITED, None, {"pids": 20, "timeout": LONG}, ("pids",)
    ),
    "uses memory slowly": Case(
        "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done", Verdict.OUT_OF_MEMORY, 137, {"memory": "16M"}, ("memory",)
    ),
    "a child uses memory": Case(f"({EAT}); exit 0", Verdict.OUT_OF_MEMORY, 0, {"memory": "16M"}, ("memory",)),
    "uses CPU in one process": Case(BURN, Verdict.CPU_TIME, 137, {"cpu_time": 0.2, "timeout": LONG}),
    "uses CPU in six processes": Case(
        f"for i in 1 2 3 4 5 6; do ({BURN}) & done; wait", Verdict.CPU_TIME, 137, {"cpu_time": 0.4, "timeout": LONG}
    ),
    "oversleeps": Case("sleep 100", Verdict.TIMED_OUT, 137, {"timeout": 0.2}),
    "floods stdout": Case("yes", Verdict.OUTPUT_LIMIT, 137, {"output_limit": 1000, "timeout": LONG}),
    "floods stderr": Case("yes >&2", Verdict.OUTPUT_LIMIT, 137, {"output_limit": 1000, "timeout": LONG}),
    "writes too much and exits": Case(
        "head -c 2000 /dev/zero; exit 0", Verdict.OUTPUT_LIMIT, None, {"output_limit": 1000}
    ),
    "ignores SIGTERM": Case(
        "trap '' TERM; while :; do sleep 1; done", Verdict.TIMED_OUT, 137, {"timeout": 0.2}
    ),
    "stops itself": Case("sh -c 'kill -STOP $$'; exit 0", Verdict.TIMED_OUT, 137, {"timeout": 0.2}),
    "closes its streams and lives on": Case("exec <&- >&- 2>&-; sleep 100", Verdict.TIMED_OUT, 137, {"timeout": 0.2}),
    "closes its streams, then exits": Case("exec <&- >&- 2>&-; sleep 0.1; exit 4", Verdict.EXITED, 4),
    "leaves daemons": Case(
        "for i in 1 2 3; do (setsid sleep 1000 &) ; done; exit 5", Verdict.EXITED, 5, {"timeout": LONG}
    ),
    "fills the disk": Case(
        "cd /work; dd if=/dev/zero of=full bs=64k count=1000 2>&1 | grep -q 'No space left' && exit 6",
        Verdict.EXITED,
        6,
        {"work": "1M", "timeout": LONG},
    ),
}  # fmt: skip


def needs(controllers: tuple[str, ...]) -> None:
    """Skips where there are no such limits."""
    if controllers:
        needs_controllers(*controllers)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_verdict(case: Case, runc: Runc, make_job: Callable[..., Job], ids: Callable[[], Any]) -> None:
    needs(case.controllers)
    if "cpu_time" in case.keywords and not VERSION_2:
        needs_controllers("cpuacct")
    result = await runc.execute(make_job(case.script, **case.keywords))
    assert result.verdict is case.verdict, result
    if case.status is not None:
        assert result.status == case.status, result
    assert bool(result) == (case.verdict is Verdict.EXITED and result.status == 0)
    assert result.ended >= result.started
    assert result.reason.endswith(".")
    assert await ids() == []


async def test_a_program_that_a_signal_ends_is_told_from_one_that_exits_with_128_and_more(
    runc: Runc, make_job: Callable[..., Job]
) -> None:
    async with runc.launch(make_job("sleep 100")) as running:
        await running.container.kill("KILL")
        result = await running.result()
    assert (result.verdict, result.status) == (Verdict.SIGNALED, 137)
    assert "9" in result.reason


async def test_memory_that_is_used_quickly_is_seen_every_time(runc: Runc, make_job: Callable[..., Job]) -> None:
    needs(("memory",))
    job = make_job(EAT, memory="8M")
    verdicts = [(await runc.execute(job)).verdict for _ in range(OOM_RUNS)]
    assert verdicts == [Verdict.OUT_OF_MEMORY] * OOM_RUNS


async def test_processes_that_hit_the_limit_of_processes_are_counted(runc: Runc, make_job: Callable[..., Job]) -> None:
    needs(("pids",))
    result = await runc.execute(make_job("for i in $(seq 40); do sleep 5 & done; exit 0", pids=16))
    assert result.usage.pids_limit_hits


async def test_usage_is_none_where_there_is_no_controller(runc: Runc, make_job: Callable[..., Job]) -> None:
    result = await runc.execute(make_job("exit 0"))
    from .._cgroups import has_controller

    assert (result.usage.oom_kills is not None) == has_controller("memory")
    assert (result.usage.pids_limit_hits is not None) == has_controller("pids")
