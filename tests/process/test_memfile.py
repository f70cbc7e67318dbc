"""Memory files: what a child prints is whole up to a limit, and costs no more than the limit."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from runc_async._process import capture, memfile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def memory_file() -> Iterator[Callable[..., int]]:
    with contextlib.ExitStack() as stack:

        def make(**keywords: object) -> int:
            fd = memfile.memory_file("test", **keywords)  # type: ignore[arg-type]
            stack.callback(os.close, fd)
            return fd

        yield make


def test_what_is_printed_is_read_whole_and_binary(memory_file: Callable[..., int]) -> None:
    fd = memory_file(limit=1 << 20)
    data = bytes(range(256)) * 1000
    subprocess.run(["cat"], input=data, stdout=fd, check=True)
    assert memfile.read_output(fd) == data
    assert not memfile.has_overflowed(fd)


def test_a_child_runs_into_the_limit_and_no_further(memory_file: Callable[..., int]) -> None:
    fd = memory_file(limit=4096)
    ended = subprocess.run(["head", "-c", "100000", "/dev/zero"], stdout=fd, stderr=subprocess.PIPE, check=False)
    assert ended.returncode != 0
    assert memfile.read_output(fd) == bytes(4096)
    assert memfile.has_overflowed(fd)
    assert os.fstat(fd).st_size == 4096


def test_a_limit_costs_nothing_until_it_is_used(memory_file: Callable[..., int]) -> None:
    assert os.fstat(memory_file(limit=capture.STDOUT_LIMIT)).st_blocks == 0


def test_content_is_read_from_its_beginning(memory_file: Callable[..., int]) -> None:
    fd = memory_file(content=b'{"a": 1}')
    assert (
        subprocess.run(["cat", f"/proc/self/fd/{fd}"], capture_output=True, pass_fds=[fd], check=True).stdout
        == b'{"a": 1}'
    )
    assert os.read(fd, 100) == b'{"a": 1}'


def test_of_a_very_long_log_the_last_whole_entries_are_read(memory_file: Callable[..., int]) -> None:
    fd = memory_file()
    line = b"x" * 99 + b"\n"
    with open(os.dup(fd), "wb") as file:
        file.write(line * (memfile.LOG_LIMIT // 100 + 1000) + b"the last\n")
    log = memfile.read_log(fd)
    assert len(log) <= memfile.LOG_LIMIT
    assert log.endswith(b"x\nthe last\n")
    assert log.startswith(line)
