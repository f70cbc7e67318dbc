"""Statuses and reasons are true where other code of this process waits for children, or has made waiting impossible."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from runc_async import ContainerNotFoundError, Runc, RuncError
from runc_async._linux.exit_status import kernel_keeps_statuses

from .._slowness import within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

needs_kept_statuses = pytest.mark.skipif(
    not kernel_keeps_statuses(), reason="this kernel forgets the status of a reaped process; Linux 6.15 keeps it"
)


@pytest.fixture
def another_waiter() -> Iterator[list[int]]:
    """A thread that calls ``waitpid(-1)`` all the time, as some libraries do; how many children it has reaped."""
    stop = threading.Event()
    reaped: list[int] = []

    def wait() -> None:
        while not stop.is_set():
            try:
                reaped.append(os.waitpid(-1, 0)[0])
            except ChildProcessError:
                time.sleep(0.0001)

    thread = threading.Thread(target=wait)
    thread.start()
    yield reaped
    stop.set()
    thread.join()


@pytest.fixture
def ignored_sigchld() -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@needs_kept_statuses
async def test_beside_a_thread_that_waits_for_every_child(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], another_waiter: list[int]
) -> None:
    for status in (0, 3, 255):
        assert await runc.run(new_id(), make_bundle("sh", "-c", f"exit {status}")) == status
    for call in (runc.start, runc.kill, runc.delete, runc.state):
        with pytest.raises(ContainerNotFoundError):
            await call("missing")
    async with runc.container(new_id(), make_bundle("sleep", "60")) as container:
        await container.start()
        for status in (0, 4, 255):
            assert (await container.run(["sh", "-c", f"echo said; exit {status}"])).status == status
    assert another_waiter


async def test_on_an_older_kernel_an_unknown_status_is_an_error(
    runc: Runc,
    make_bundle: Callable[..., Path],
    new_id: Callable[[], str],
    another_waiter: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from runc_async._linux import exit_status

    monkeypatch.setattr(exit_status, "_kept_status", lambda pidfd: None)
    monkeypatch.setattr(exit_status, "kernel_keeps_statuses", lambda: False)
    errors = []
    for status in [3] * 10:
        try:
            assert await runc.run(new_id(), make_bundle("sh", "-c", f"exit {status}")) == status
        except RuncError as exc:
            errors.append(str(exc))
        with contextlib.suppress(RuncError):
            await runc.kill("missing")
            pytest.fail("it was killed")
    assert all("cannot be known: another waiter in this process has taken it" in error for error in errors)
    assert another_waiter


async def test_while_sigchld_is_ignored_every_call_is_refused_with_what_to_do(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, ignored_sigchld: None, state_root: Path
) -> None:
    calls = [
        lambda: runc.run(container_id, make_bundle("true")),
        lambda: runc.create(container_id, make_bundle("true")),
        lambda: runc.delete("missing"),
        runc.version,
    ]
    with within(10):
        for call in calls:
            with pytest.raises(
                RuncError, match=r"SIGCHLD is ignored .* signal.signal\(signal.SIGCHLD, signal.SIG_DFL\)"
            ):
                await call()
    assert not list(state_root.iterdir())
