"""The way of ``status_fd`` to the runtime, proved with a stand-in that says what it got."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import FdExecutor, PathExecutor, Runc, SealedExecutor

if TYPE_CHECKING:
    from pathlib import Path

    from runc_async import Executor

pytestmark = pytest.mark.anyio

CALLS = 40
STAND_IN = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --status-fd) n=$2;; --status-fd=*) n=${1#*=};; esac
  id=$1; shift
done
{ echo "$id $n"; for f in /proc/$$/fd/*; do echo "${f##*/} $(readlink $f)"; done; } > /proc/$$/fd/$n
"""


@pytest.mark.parametrize("kind", ["path", "held", "sealed"])
async def test_every_call_gets_its_own_descriptor_and_the_executors(tmp_path: Path, kind: str) -> None:
    script = tmp_path / "runc"
    script.write_text(STAND_IN)
    script.chmod(0o755)
    said: dict[str, list[str]] = {}
    inodes: dict[str, str] = {}

    async def call(runc: Runc, id: str) -> None:
        reader, writer = os.pipe()
        inodes[id] = os.readlink(f"/proc/self/fd/{writer}")
        with os.fdopen(reader, "rb") as ours:
            with os.fdopen(writer, "wb") as theirs:
                await runc.checkpoint(id, status_fd=theirs)
            said[id] = ours.read().decode().splitlines()

    opened: Executor
    if kind == "path":
        opened = PathExecutor(script)
    else:
        opened = FdExecutor.open(script) if kind == "held" else SealedExecutor.open(script)
    with opened as executor:
        async with anyio.create_task_group() as group:
            for number in range(CALLS):
                group.start_soon(call, Runc(executor), f"c{number}")
    assert len(said) == CALLS
    for id, (first, *listed) in said.items():
        name, number = first.split()
        descriptors = dict(line.split(" ", 1) for line in listed)
        assert name == id
        assert descriptors[number] == inodes[id]
        pipes = {what for what in descriptors.values() if what.startswith("pipe:")} - {inodes[id]}
        assert not pipes & set(inodes.values()), "another call's"
        if kind != "path":
            what = str(script) if kind == "held" else "memfd:runc"
            numbers = [int(n) for n, target in descriptors.items() if what in target]
            assert any(n > int(number) for n in numbers), "the executor's comes after all others"
