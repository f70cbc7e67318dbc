"""What is written about versions agrees with what each recorded runtime says in its own help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runc_async._cli.commands import COMMANDS, GLOBAL
from runc_async._cli.quirks import OLDEST, SINCE, VULNERABILITIES, Vulnerability, has, known_vulnerabilities

RECORDED = sorted((Path(__file__).parents[1] / "data/runtimes").iterdir())
HIDDEN = {("kill", "--all"), ("update", "--kernel-memory"), ("update", "--kernel-memory-tcp"), ("", "--criu")}
"""What runc takes without a word in its help."""
WITHOUT_CRIU = {"crun-1.8.1": {"checkpoint", "restore"}}
"""Commands that a recorded build lacks."""


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_every_flag_has_the_first_version_that_the_recorded_runtimes_confirm(folder: Path) -> None:
    said = json.loads((folder / "flags.json").read_text())
    runtime, _, version = folder.name.partition("-")
    release = tuple(map(int, version.split(".")))
    wrong = []
    for command in (GLOBAL, *COMMANDS.values()):
        name = "" if command is GLOBAL else command.name
        if name in WITHOUT_CRIU.get(folder.name, ()):
            continue
        if has(runtime, release, name) != (name in said):
            wrong.append(name)
        for flag in command.flags.values():
            listed = flag.name in said.get(name, ())
            if has(runtime, release, name, flag.name) != listed and (name, flag.name) not in HIDDEN:
                wrong.append(f"{name} {flag.name}")
    assert wrong == []


def test_the_table_of_first_versions_names_known_commands_and_flags_alone() -> None:
    known = {*COMMANDS}
    for command in (GLOBAL, *COMMANDS.values()):
        known |= {f"{'' if command is GLOBAL else command.name} {flag}".strip() for flag in _flags(command)}
    assert {*SINCE} - known == {"mounts"}
    assert {name for first in SINCE.values() for name in first} <= {*OLDEST}


def _flags(command: object) -> list[str]:
    return [flag.name for flag in command.flags.values()]  # type: ignore[attr-defined]


def test_a_flag_that_was_taken_away_is_had_by_the_versions_before() -> None:
    assert [has("runc", release, "", "--criu") for release in ((1, 1), (1, 3, 6), (1, 4), (1, 5))] == [
        True,
        True,
        False,
        False,
    ]
    assert not has("runc", (1, 5), "mounts", "--help")
    assert not has("somerunc", (1, 5), "create")


@pytest.mark.parametrize(
    ("release", "concerned"),
    [
        ((1, 1, 15), True), ((1, 2, 7), True), ((1, 2, 8), False), ((1, 2, 10), False), ((1, 3, 2), True),
        ((1, 3, 3), False), ((1, 4), False), ((1, 5, 1), False), ((2,), False),
    ],
)  # fmt: skip
def test_a_hole_concerns_each_branch_up_to_its_own_repair(release: tuple[int, ...], concerned: bool) -> None:
    hole = Vulnerability("CVE", ((1, 2, 8), (1, 3, 3), (1, 4)), "")
    assert hole.concerns(release) is concerned


def test_known_vulnerabilities_are_those_of_the_runtime_and_version() -> None:
    assert [hole.name for hole in known_vulnerabilities("crun", (1, 27, 1))] == ["CVE-2026-47766"]
    assert known_vulnerabilities("runc", (1, 3, 6)) == known_vulnerabilities("runc", (1, 5)) == ()
    assert {"CVE-2024-21626", "CVE-2026-41579"} <= {hole.name for hole in known_vulnerabilities("runc", (1, 1, 5))}
    assert known_vulnerabilities("youki", (0, 1)) == ()
    for holes in VULNERABILITIES.values():
        for hole in holes:
            assert list(hole.fixed) == sorted(hole.fixed)
