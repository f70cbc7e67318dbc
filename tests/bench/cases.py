"""What is measured: a function for each table, which measures, and says what it found against its targets."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .alternatives import alternatives
from .contenders import (
    BARE,
    DIRECT,
    EXECUTORS,
    GO,
    GORUNC,
    LOOPS,
    NO_PIPES,
    PLAIN,
    PROJECT,
    Contender,
    Way,
    interleaved,
)
from .figures import (
    Figure,
    Sample,
    Target,
    calls,
    children_per_call,
    cores_busy,
    cpu_per_call,
    medians,
    per_second,
    percentile,
    ratio,
)
from .pages import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SID = PROJECT / "tests/matrix/sid"
RESULT = PROJECT / ".cache/bench/protection.json"
FLAT = 1.25
"""What "flat" means: at most so many times as long with the most containers as with one."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    one_at_a_time: int = 60
    """Rounds; so are the next ones."""
    at_once: int = 5
    lives: int = 8
    stalls: int = 5
    parents: int = 40
    imports: int = 20
    alternatives: int = 8
    seconds: float = 60
    """The most that one comparison may take, on a machine that is too busy for all rounds."""
    calls_at_once: int = 128
    live: tuple[int, ...] = (1, 10, 100, 500)
    """So many containers."""
    loads: tuple[tuple[str, int], ...] = (("version", 16), ("version", 64), ("state", 4), ("state", 16), ("state", 64))
    """Which call, and how many at once."""


QUICK = Size(
    one_at_a_time=12,
    at_once=1,
    lives=1,
    stalls=1,
    parents=6,
    imports=5,
    alternatives=1,
    seconds=6,
    live=(1, 10, 50),
    loads=(("state", 16), ("state", 64)),
)


class Curve(NamedTuple):
    """How something grows: drawn, not only stated."""

    title: str
    x: str
    y: str
    lines: dict[str, dict[float, Figure]]


@dataclass
class Report:
    """What was found."""

    targets: list[Target] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    bars: dict[str, dict[str, Figure]] = field(default_factory=dict)
    """By title, figures in the unit that the title names."""
    alternatives: dict[str, dict[str, Figure]] = field(default_factory=dict)
    """The same of what a user would otherwise choose."""
    alternative_tables: list[Table] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is missing, and why."""


class Field:
    """All contenders in one place."""

    def __init__(self, place: Mapping[str, str], stack: contextlib.ExitStack) -> None:
        self._place = place
        self._stack = stack
        self._contenders: dict[str, Contender] = {}
        self.has_go = GORUNC.exists()

    def contender(self, kind: str) -> Contender:
        """The one of a kind, started when it is first asked for."""
        if kind not in self._contenders:
            self._contenders[kind] = self._stack.enter_context(Contender(kind, self._place))
        return self._contenders[kind]

    def ours(self, loops: Sequence[str] = LOOPS, executors: Sequence[str] = EXECUTORS) -> list[Way]:
        """The ways to use this project."""
        return [Way(f"{loop}, {executor}", self.contender(loop), executor) for loop in loops for executor in executors]

    def go(self) -> list[Way]:
        """go-runc, where it was built."""
        return [Way(GO, self.contender(GO), "path")] if self.has_go else []

    def plain(self) -> list[Way]:
        """What asyncio itself has."""
        return [Way(PLAIN, self.contender("plain"), "path")]

    def bare(self) -> list[Way]:
        """The system call, of the same binary reached in the same way."""
        return [Way(name, self.contender("bare"), executor) for name, executor in zip(BARE, EXECUTORS, strict=True)]

    def limits(self) -> list[Way]:
        """What shows where the time goes: asyncio's way with nothing captured, and this project without that way."""
        return [Way(NO_PIPES, self.contender("plain"), "none"), Way(DIRECT, self.contender("direct"), "path")]

    def aside(self, kind: str) -> contextlib.AbstractContextManager[Contender]:
        """One more of a kind, for as long as it is needed."""
        return Contender(kind, self._place)


def quotients(
    found: Mapping[str, list[Sample]], ways: Sequence[Way], than: str, of: object = medians
) -> dict[str, float]:
    """What each way needs in times what another needs; nothing where the other is missing."""
    if than not in found:
        return {}
    assert callable(of)
    return {way.name: ratio(of(found[way.name]), of(found[than])).median for way in ways}


def one_at_a_time(field: Field, report: Report, size: Size) -> None:
    """`version` and `state`."""
    ours = field.ours()
    everybody = [*ours, *field.go(), *field.plain(), *field.limits(), *field.bare()]
    for op in ("version", "state"):
        found = interleaved(everybody, op, seconds=size.seconds, rounds=size.one_at_a_time, times=5)
        floor = {w.name: f"posix_spawn, {w.executor}" if w.executor in EXECUTORS else BARE[0] for w in everybody}
        against_floor = {way.name: quotients(found, [way], floor[way.name])[way.name] for way in everybody}
        against_go = quotients(found, everybody, GO)
        cpu = quotients(found, everybody, PLAIN, cpu_per_call)
        for what, limit, values in (
            (f"`{op}()` against `posix_spawn` of the same binary", 1.15, against_floor),
            (f"`{op}()` against go-runc", 1.05, against_go),
            (f"CPU time of our process, `{op}()`, against plain `{PLAIN}`", 1.5, cpu),
        ):
            mine = {way.name: values[way.name] for way in ours if values}
            report.targets.append(Target(what, limit, " x", values=mine))
        table = Table(
            f"`{op}()`, one at a time",
            ("", "ms", "x posix_spawn", "x go-runc", "CPU time of the caller, ms"),
        )
        for name, samples in found.items():
            table.rows.append((
                name, calls(samples).text(1000), f"{against_floor[name]:.2f}",
                f"{against_go[name]:.2f}" if against_go else "-",
                Figure.of(cpu_per_call(samples)).text(1000),
            ))  # fmt: skip
        report.tables.append(table)
        report.bars[f"{op}(), one at a time: ms"] = {name: scaled(calls(samples)) for name, samples in found.items()}


def at_once(field: Field, report: Report, size: Size) -> None:
    """The same, many at once."""
    ours = field.ours()
    everybody = [*ours, *field.go(), *field.plain()]
    curve = Curve("state(), many at once", "calls at once", "calls per second", {})
    table = Table("Many at once", ("", *(f"`{op}()`, {n} at once: calls per second" for op, n in size.loads)))
    spent = Table(
        "Where the CPU time of a call goes, 16 at once",
        ("", "the caller, ms", "the runtime, ms", "cores busy"),
        said="CPU time for one call, and how many cores all of it together kept busy.",
    )
    rows: dict[str, list[str]] = {way.name: [way.name] for way in everybody}
    for op, number in size.loads:
        found = interleaved(
            everybody, op, seconds=size.seconds, rounds=size.at_once, times=size.calls_at_once, at_once=number
        )
        if number >= 16:
            what = f"`{op}()`, {number} at once: calls per second, against go-runc"
            report.targets.append(Target(what, 1, " x", at_least=True, values=quotients(found, ours, GO, per_second)))
        for name, samples in found.items():
            rows[name].append(Figure.of(per_second(samples)).text(digits=0))
            if op == "state" and not name.endswith("sealed"):
                curve.lines.setdefault(name, {})[number] = Figure.of(per_second(samples))
        if number == 16:
            spent.rows += [
                (
                    f"`{op}()`: {name}",
                    Figure.of(cpu_per_call(samples)).text(1000),
                    Figure.of(children_per_call(samples)).text(1000),
                    Figure.of(cores_busy(samples)).text(),
                )
                for name, samples in found.items()
            ]
        report.bars[f"{op}(), {number} at once: calls per second"] = {
            name: Figure.of(per_second(samples)) for name, samples in found.items()
        }
    table.rows += rows.values()
    report.tables += [table, spent]
    report.curves.append(curve)


def lives(field: Field, report: Report, size: Size) -> None:
    """A container's whole life, and a process in a live one."""
    ours = field.ours()
    everybody = [*ours, *field.go()]
    for op, title, times in (
        ("life", "A whole life: create, start, kill, delete", 3),
        ("run", '`Container.run(["true"])` in a live container, on this machine\'s runtime', 5),
    ):
        found = interleaved(everybody, op, seconds=size.seconds, rounds=size.lives, times=times)
        against = quotients(found, everybody, GO)
        if op == "life":
            values = {way.name: against[way.name] for way in ours if against}
            report.targets.append(Target("a whole life, against go-runc", 0.35, " x", values=values))
        report.tables.append(by_calls(title, found, against))
        report.bars[f"{title}: ms".replace("`", "")] = {name: scaled(calls(samples)) for name, samples in found.items()}


def stalls(field: Field, report: Report, size: Size) -> None:
    """How late the event loop comes to anything else while 64 calls are under way."""
    everybody = [*field.ours(), *field.plain()]
    found = interleaved(everybody, "state", seconds=size.seconds, rounds=size.stalls, times=256, at_once=64, beats=True)
    late = {name: [value * 1000 for sample in samples for value in sample.late] for name, samples in found.items()}
    table = Table(
        "Stalls of the event loop while 64 calls of `state()` are under way",
        ("", "median, ms", "p99, ms", "longest, ms"),
        [(n, f"{statistics.median(v):.2f}", f"{percentile(v, 99):.2f}", f"{max(v):.2f}") for n, v in late.items()],
        said="By how much a task that wakes every millisecond is late. Both cores are busy with the runtime meanwhile.",
    )
    report.targets.append(
        Target(
            "stalls of the event loop while 64 calls are under way, p99", 5, " ms",
            values={way.name: percentile(late[way.name], 99) for way in everybody[:-1]},
        )
    )  # fmt: skip
    report.tables.append(table)
    report.bars["stalls of the event loop, 64 calls at once: p99, ms"] = {
        name: Figure(percentile(v, 99), percentile(v, 90), percentile(v, 99.9)) for name, v in late.items()
    }


def parents(field: Field, report: Report, size: Size) -> None:
    """A large parent, and one with many descriptors, against a small one."""
    kinds = [(loop, ("path", "fd")) for loop in LOOPS] + [("bare", ("path",))]
    for op, unit, steps, limit, title in (
        ("ballast", 1 << 30, (1 << 29, 1 << 31), 1.1, "parent with 2 GiB resident, against a small one"),
        ("descriptors", 1, (1_000, 10_000), 1.2, "10,000 open descriptors in the parent, against ten"),
    ):
        target = Target(title, limit, " x")
        curve = Curve(
            f"version() from a {title.partition(',')[0]}", "GiB" if op == "ballast" else "descriptors", "ms", {}
        )
        table = Table(f"`version()`: {title}", ("", "small, ms", *(f"{s / unit:g} {curve.x}, ms" for s in steps), "x"))
        for kind, executors in kinds:
            with contextlib.ExitStack() as stack:
                larger = [stack.enter_context(field.aside(kind)) for _ in steps]
                for contender, step in zip(larger, steps, strict=True):
                    contender.ask(op, amount=step)
                for executor in executors:
                    name = BARE[0] if kind == "bare" else f"{kind}, {executor}"
                    everybody = zip((0, *steps), (field.contender(kind), *larger), strict=True)
                    ways = [Way(str(step), contender, executor) for step, contender in everybody]
                    found = interleaved(ways, "version", seconds=size.seconds, rounds=size.parents, times=3)
                    times = ratio(medians(found[str(steps[-1])]), medians(found["0"])).median
                    if kind != "bare":
                        target.values[name] = times
                    curve.lines[name] = {int(step) / unit: scaled(calls(found[step])) for step in found}
                    table.rows.append((name, *(f.text() for f in curve.lines[name].values()), f"{times:.2f}"))
        report.targets.append(target)
        report.tables.append(table)
        report.curves.append(curve)


def live(field: Field, report: Report, size: Size) -> None:
    """More and more containers that live, a task waiting for each."""
    most = size.live[-1]
    ops = ("state", "kill", "wait")
    lines: dict[str, dict[float, Figure]] = {op: {} for op in ops}
    memory: dict[int, int] = {}
    with field.aside("asyncio") as contender:
        contender.ask("waited", times=2)
        for count in size.live:
            contender.ask("live", count=count)
            for op in ("state", "kill"):
                answer = contender.ask(op, times=size.parents * 2, executor="path")
                lines[op][count] = scaled(Figure.of(answer["seconds"][2:]))
            lines["wait"][count] = scaled(Figure.of(contender.ask("waited", times=size.parents // 2)))
            memory[count] = contender.ask("memory")
    first = size.live[1]
    each = (memory[most] - memory[first]) / (most - first) / 1024
    report.targets += [
        Target(f"{most} live containers against one (flat: at most {FLAT} x)", FLAT, " x",
               values={op: line[most].median / line[size.live[0]].median for op, line in lines.items()}),
        Target("memory of ours per waiting container", 32, " KiB", values={"asyncio": each}),
    ]  # fmt: skip
    report.tables.append(
        Table(
            "More and more live containers, a task waiting for each",
            ("", *(f"{count} live, ms" for count in size.live)),
            [(f"`{op}`", *(line[count].text() for count in size.live)) for op, line in lines.items()],
            said="`wait` is from the kill of a container until the task that waits for it goes on, on a `Subreaper`. "
            f"A waiting container takes {each:.1f} KiB of our memory.",
        )
    )
    report.curves.append(Curve("live containers", "containers alive", "ms", lines))


def protection(field: Field, report: Report, size: Size) -> None:
    """`Container.run` on a newer runtime, in the sid root, where it can protect itself by overlayfs and where not."""
    title = '`Container.run(["true"])` where the runtime {} protect itself by overlayfs'
    targets = {
        "cannot": Target(f"{title.format('cannot')}, sealed, against go-runc", 0.6, " x"),
        "can": Target(f"{title.format('can')}, sealed, against go-runc", 1.05, " x"),
    }
    report.targets += targets.values()
    if not field.has_go:
        return
    RESULT.unlink(missing_ok=True)
    inside = [
        ".cache/venv-sid/bin/python",
        "-m",
        "tests.bench.protection",
        RESULT.relative_to(PROJECT),
        str(size.lives * 2),
    ]
    try:
        environment = [".ci/setup", "environment", ".cache/venv-sid", "/usr/bin/python3", "test"]
        for command in (environment, inside):
            subprocess.run([SID, "run", "v1", *command], check=True, cwd=PROJECT, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        report.notes.append(f"where the runtime can and cannot protect itself: the sid root did not run: {error}")
        return
    said = json.loads(RESULT.read_text())
    for where, target in targets.items():
        found = {name: [Sample(*sample) for sample in samples] for name, samples in said["found"][where].items()}
        against = {name: ratio(medians(samples), medians(found[GO])).median for name, samples in found.items()}
        target.values["asyncio, sealed"] = against["asyncio, sealed"]
        name = f"{title.format(where)}"
        report.tables.append(
            by_calls(name, found, against, f"In the sid root: {said['runtime']}, Python {said['python']}.")
        )
        report.bars[f"{name}: ms".replace("`", "")] = {name: scaled(calls(samples)) for name, samples in found.items()}


IMPORT = """
import sys, time
began = time.perf_counter()
import runc_async
print(time.perf_counter() - began, *(name for name in ("trio", "aiohttp", "uvloop") if name in sys.modules))
"""


def imports(field: Field, report: Report, size: Size) -> None:
    """`import runc_async`, in a new interpreter each time."""
    taken: list[float] = []
    unneeded: set[str] = set()
    for _ in range(size.imports):
        said = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True, cwd=PROJECT)
        seconds, *names = said.stdout.split()
        taken.append(float(seconds) * 1000)
        unneeded.update(names)
    report.targets += [
        Target("`import runc_async`", 80, " ms", values={"all": statistics.median(taken)}),
        Target(
            "of trio, uvloop and aiohttp, imported before it is needed", 0, " modules", values={"all": len(unneeded)}
        ),
    ]
    report.tables.append(Table("`import runc_async`", ("ms",), [(Figure.of(taken).text(digits=1),)]))


def by_calls(title: str, found: Mapping[str, list[Sample]], against: Mapping[str, float], said: str = "") -> Table:
    """A table of how long calls took."""
    rows = [
        (
            name,
            calls(samples).text(1000, 1),
            f"{against[name]:.2f}" if against else "-",
            Figure.of(cpu_per_call(samples)).text(1000),
            Figure.of(children_per_call(samples)).text(1000),
        )
        for name, samples in found.items()
    ]
    return Table(title, ("", "ms", "x go-runc", "CPU time of the caller, ms", "of the runtime, ms"), rows, said)


def scaled(figure: Figure) -> Figure:
    """Seconds as milliseconds."""
    return Figure(*(value * 1000 for value in figure))


CASES = (one_at_a_time, at_once, lives, protection, stalls, parents, live, imports, alternatives)
