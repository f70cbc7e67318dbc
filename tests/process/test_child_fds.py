"""The descriptors of a call: private duplicates, and the child sees exactly the map that was asked for."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runc_async._process.child_fds import ChildFds

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 40


class TestChildFds:
    def test_a_closed_original_and_a_reused_number_change_nothing(self) -> None:
        reader, writer = os.pipe()
        os.write(writer, b"mine")
        with ChildFds([reader]) as fds:
            os.close(reader)
            reused = os.open(os.devnull, os.O_RDONLY)
            assert reused == reader
            fds.stdio(0, 1, 2)
            *_, source = fds.child_map().numbered
            assert os.read(source, 10) == b"mine"
            os.close(reused)
        os.close(writer)

    def test_every_source_lies_above_every_number_that_is_chosen(self) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        with ChildFds([null] * 30) as fds:
            fds.stdio(*(fds.duplicate(null) for _ in range(3)))
            assert fds.keep(fds.adopt(os.dup(null))) == 33
            assert fds.executable(os.dup(null)) == 34
            sources, kept = fds.child_map()
            assert kept is None
            assert len(sources) == 35
            assert all(source >= 35 for source in sources)
        os.close(null)

    def test_the_executable_is_last_whatever_else_is_kept(self) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        with ChildFds() as fds:
            fds.stdio(*(fds.duplicate(null) for _ in range(3)))
            executable = os.dup(null)
            kept = [fds.duplicate(null) for _ in range(3)]
            assert [fds.keep(fd) for fd in kept] == [3, 4, 5]
            assert [fds.path(fd) for fd in kept] == [f"/proc/self/fd/{number}" for number in (3, 4, 5)]
            assert fds.executable(executable) == 6
            assert fds.child_map().numbered[3:6] == tuple(kept)
        os.close(null)

    def test_where_asyncio_starts_the_child_numbers_are_the_parents(self) -> None:
        async def look() -> None:
            null = os.open(os.devnull, os.O_RDWR)
            with ChildFds() as fds:
                fds.stdio(*(fds.duplicate(null) for _ in range(3)))
                executable = os.dup(null)
                kept = fds.duplicate(null)
                assert fds.keep(kept) == kept
                last = fds.executable(executable)
                assert last > kept
                assert fds.child_map().kept == (kept, last)
                assert len(fds.child_map().numbered) == 3
            os.close(null)

        asyncio.run(look())

    @pytest.mark.parametrize(
        ("entry", "error"), [(-1, OSError), (9999, OSError), ("3", TypeError), (True, TypeError), (None, TypeError)]
    )
    def test_what_is_no_open_descriptor_is_named(self, entry: object, error: type[Exception]) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        with pytest.raises(error, match=r"preserve_fds\[1\]") as caught:
            ChildFds([null, entry])  # type: ignore[list-item]
        if isinstance(caught.value, OSError):
            assert caught.value.errno == errno.EBADF
        os.close(null)

    @pytest.fixture
    def few_descriptors(self) -> Iterator[int]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, hard))
        yield LIMIT
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def test_exhaustion_is_emfile_at_every_step_and_leaves_nothing(self, few_descriptors: int) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        with pytest.raises(OSError, match="Too many") as caught:
            ChildFds([null] * few_descriptors)
        assert caught.value.errno == errno.EMFILE
        with ChildFds() as fds, pytest.raises(OSError, match="Too many"):
            list(map(fds.duplicate, [null] * few_descriptors))
        with ChildFds() as fds:
            fds.keep(fds.adopt(os.dup2(null, few_descriptors - 1)))
            with pytest.raises(OSError, match="Too many"):
                fds.executable(os.dup(null))
        os.close(null)


CHILD = """\
import os
found = {}
for name in sorted(os.listdir("/proc/self/fd"), key=int):
    try:
        found[name] = os.pread(int(name), 20, 0).decode()
    except OSError:
        pass
import json
os.write(2, json.dumps(found).encode())
"""

# One process per example, which closes some of its own 0, 1, 2, puts marked files at the numbers asked for,
# spawns a child with the map, and prints what the child found under each number.
PARENT = """
    import json, os, sys
    sys.path.insert(0, os.getcwd())
    import anyio
    from runc_async import _spawn
    from runc_async._process.child_fds import ChildFds

    numbers, preserved, closed, cwd, backend, CHILD = json.loads(sys.argv[1])
    out = os.dup(1)
    os.set_inheritable(out, False)
    top = os.dup2(out, 200, inheritable=False)
    os.close(out)

    def marked(text):
        fd = os.memfd_create(text)
        os.write(fd, text.encode())
        return fd

    for number in numbers:
        fd = marked(f"m{number}")
        if fd != number:
            os.dup2(fd, number, inheritable=False)
            os.close(fd)
    for number in closed:
        os.close(number)

    async def main():
        with ChildFds(preserved) as fds:
            null = fds.adopt(os.open("/dev/null", os.O_RDWR))
            fds.keep(fds.adopt(marked("kept")))
            fds.stdio(null, null, fds.duplicate(200))
            exe = fds.executable(os.open(sys.executable, os.O_PATH))
            request = _spawn.Request(
                f"/proc/self/fd/{exe}", ["python", "-I", "-S", "-c", CHILD], dict(os.environ), fds.child_map(), cwd
            )
            child = await _spawn.start(request)
            fds.close()
            assert await child.wait() == 0

    anyio.run(main, backend=backend)
"""


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sources=st.lists(st.integers(3, 20), max_size=9),
    closed=st.sets(st.sampled_from([0, 1, 2])),
    cwd=st.sampled_from([None, "/tmp"]),
    backend=st.sampled_from(["asyncio", "trio"]),
)
def test_any_sources_onto_any_targets(
    sources: list[int], closed: set[int], cwd: str | None, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overlaps, cycles, duplicates; sources below, inside and above the targets; a parent without 0, 1 or 2."""
    numbers = sorted(set(sources))
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(PARENT),
            json.dumps([numbers, sources, sorted(closed), cwd, backend, CHILD]),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    arrived = {number: text for number, text in found.items() if int(number) >= 3 and text}
    wanted = {str(3 + index): f"m{source}" for index, source in enumerate(sources)}
    assert {number: arrived[number] for number in wanted} == wanted
    others = {text for number, text in arrived.items() if number not in wanted and not text.startswith("\x7fELF")}
    assert others == {"kept"}
