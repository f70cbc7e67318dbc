"""Which event loop runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import ModuleType

import anyio
import pytest

from runc_async._eventloop.detect import clock, in_asyncio, in_trio


@pytest.mark.anyio
async def test_each_event_loop_is_told_from_the_others(anyio_backend: tuple[str, dict[str, object]]) -> None:
    name, options = anyio_backend
    assert in_trio() == (name == "trio")
    assert in_asyncio() == (name == "asyncio" and not options)


def test_a_subclass_of_asyncios_loop_is_one_of_its_own() -> None:
    class Loop(asyncio.SelectorEventLoop):
        pass

    async def ask() -> bool:
        return in_asyncio()

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(ask())


def test_outside_of_an_event_loop_it_is_neither() -> None:
    assert not in_trio()
    assert not in_asyncio()


@pytest.mark.anyio
async def test_the_clock_goes_on() -> None:
    now = clock()
    first = now()
    await anyio.sleep(0.001)
    assert now() > first


def test_no_event_loop_is_imported_to_find_out() -> None:
    program = """if True:
        import sys
        from runc_async._eventloop.detect import in_asyncio, in_trio
        before = set(sys.modules)
        assert not in_trio() and not in_asyncio()
        assert set(sys.modules) == before
    """
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_trio_that_another_thread_is_importing_is_not_running(monkeypatch: pytest.MonkeyPatch) -> None:
    for partial in (ModuleType("trio.lowlevel"), None):
        monkeypatch.setitem(sys.modules, "trio.lowlevel", partial)
        assert not in_trio()
