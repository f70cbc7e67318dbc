"""The contenders: processes that wait to be asked for calls, so that one makes them while the others rest."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .figures import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Self

PROJECT = Path(__file__).resolve().parents[2]
GORUNC = PROJECT / ".cache/bench/gorunc"
LOOPS = ("asyncio", "uvloop", "trio")
EXECUTORS = ("path", "fd", "sealed")
OURS = [f"{loop}, {executor}" for loop in LOOPS for executor in EXECUTORS]
PLAIN = "create_subprocess_exec"
BARE = [f"posix_spawn, {executor}" for executor in EXECUTORS]
GO = "go-runc"
DIRECT = "asyncio, path, by posix_spawn"
NO_PIPES = f"{PLAIN}, no output"


class FailedError(Exception):
    """A contender has ended instead of answering."""


class Contender:
    """One process that makes calls; see `tests.bench.worker`."""

    def __init__(self, kind: str, place: Mapping[str, str]) -> None:
        self.kind = kind
        program = [GORUNC] if kind == GO else [sys.executable, "-m", "tests.bench.worker", kind]
        self._process = subprocess.Popen(
            [*program, json.dumps(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            process_group=0,  # a terminal's Ctrl-C is for who asks
        )

    def ask(self, op: str, **asked: Any) -> Any:
        """Ask, and wait for the answer.

        :raises FailedError: there is none; the process has said why on stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **asked}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise FailedError(f"{self.kind} could not be asked for {op}") from None
        line = self._process.stdout.readline()
        if not line:
            raise FailedError(f"{self.kind} ended instead of answering {op}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # no further request: it takes down what it has, and ends


class Way(NamedTuple):
    """One line of a table: a contender, and by which executor it makes its calls."""

    name: str
    contender: Contender
    executor: str


def interleaved(
    ways: Iterable[Way], op: str, *, rounds: int, times: int, at_once: int = 1, seconds: float = math.inf, **asked: Any
) -> dict[str, list[Sample]]:
    """Let everybody make the same calls, in turn and every round in another order.

    :param rounds: how often everybody has a turn; one more comes first, and does not count.
    :param times: calls in one turn.
    :param at_once: so many of them at the same time.
    :param seconds: on a machine that is too busy for all rounds in that time there are fewer, two at least.
    :returns: of each name, its samples, round by round.
    """
    order = list(ways)
    found: dict[str, list[Sample]] = {way.name: [] for way in order}
    shuffle = random.Random(op).shuffle
    began = time.monotonic()
    for number in range(rounds + 1):
        if number > 2 and time.monotonic() - began > seconds:
            break
        shuffle(order)
        for way in order:
            answer = way.contender.ask(op, times=times, at_once=at_once, executor=way.executor, **asked)
            if number:
                found[way.name].append(Sample(**answer))
    return found
