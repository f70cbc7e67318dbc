"""The tables against every installed runtime's own help, and what command lines are made of which values."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from runc_async._cli.command_line import command_line, global_options
from runc_async._cli.commands import COMMANDS, GLOBAL
from runc_async._models import parse_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runc_async._cli.flags import Command

PROJECT = Path(__file__).parents[2]
RECORDED = PROJECT / "tests/data/runtimes"

# -- the tables against --help -----------------------------------------------------------------------------

NO_KEYWORD = {
    "--help": "prints the help and does nothing else",
    "--usage": "crun: prints a shorter help",
    "--version": "a method of its own",
}
NO_METHOD = {
    "help": "prints the help",
    "mounts": "crun: for Runc.call",
}
WITH_A_VALUE = {
    "--network-lock": "crun declares it without one and takes one",
}
RUNTIMES = sorted({os.environ.get("RUNC_ASYNC_RUNTIME", "runc"), "runc", "crun"})


class Documented(NamedTuple):
    """One flag as a runtime's help shows it."""

    name: str
    takes_a_value: bool


def run(runtime: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([runtime, *args], capture_output=True, text=True, check=False)


def documented_flags(text: str) -> list[Documented]:
    """The flags in a help text of urfave/cli (runc) or argp (crun): indented lines that begin with them."""
    line = re.compile(r" {2,6}(?:-[\w?], )*--([a-z0-9-]+)(?: (value)|(=\S+)|(\[=\S+\]))?", re.MULTILINE)
    found = [Documented(f"--{m[1]}", bool(m[2] or m[3])) for m in line.finditer(text)]
    return [flag for flag in found if flag.name not in NO_KEYWORD]


def documented_commands(text: str) -> list[str]:
    below = text.partition("COMMANDS:\n")[2]
    section = re.split(r"\n\s*\n", below)[0]
    return [m[1] for m in re.finditer(r"^\s+([a-z]+)(?:, \w)?\s+", section, re.MULTILINE) if m[1] not in NO_METHOD]


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def tables(runtime: str) -> Iterator[tuple[str, Command, list[Documented]]]:
    """Each command of a runtime, the global options first, with what its help says."""
    text = run(runtime, "--help").stdout
    yield "", GLOBAL, documented_flags(text)
    for name in documented_commands(text):
        yield name, COMMANDS[name], documented_flags(run(runtime, name, "--help").stdout)


def test_every_command_in_the_help_has_a_table(runtime: str) -> None:
    commands = documented_commands(run(runtime, "--help").stdout)
    assert len(commands) > 12
    assert set(commands) <= set(COMMANDS)


def test_every_flag_in_the_help_has_its_keyword(runtime: str) -> None:
    seen = 0
    for name, table, flags in tables(runtime):
        seen += len(flags)
        names = {flag.name for flag in table.flags.values()}
        missing = [flag.name for flag in flags if flag.name not in names]
        assert not missing, f"{runtime} {name}: no keyword for {missing}"
    assert seen > 60


def test_what_is_a_switch_in_the_help_is_a_switch_here(runtime: str) -> None:
    for name, table, flags in tables(runtime):
        for flag in flags:
            mine = table.flags[flag.name[2:].replace("-", "_")]
            takes_a_value = flag.takes_a_value or flag.name in WITH_A_VALUE
            assert (mine.convert is not None) == takes_a_value, f"{runtime} {name} {flag.name}"


def test_the_recorded_flags_of_this_version_are_those_in_its_help(runtime: str, state_root: Path) -> None:
    found = parse_version(run(runtime, "--root", str(state_root), "--version").stdout)
    recorded = RECORDED / f"{found.runtime}-{'.'.join(map(str, found.release))}" / "flags.json"
    if not recorded.exists():
        pytest.skip(f"{runtime} {found.version} is not recorded")
    flags = {name: sorted({flag.name for flag in flags}) for name, _, flags in tables(runtime)}
    assert flags == json.loads(recorded.read_text())


def test_the_page_of_commands_is_written_from_these_tables() -> None:
    script = PROJECT / "docs/write_commands.py"
    page = subprocess.run(
        [sys.executable, "-c", f"import runpy; print(runpy.run_path({str(script)!r})['page'](), end='')"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert (PROJECT / "docs/commands.md").read_text() == page, "run docs/write_commands.py"


ODD = "--debug=-x y"  # whatever reads this as anything but a value fails
SAMPLES: dict[str, Any] = {
    "cgroup_manager": "cgroupfs",
    "log_format": "json",
    "log_level": "debug",
    "rootless": False,
    "interval": 0.25,
    "format": "table",
    "network_lock": "skip",
    "manage_cgroups_mode": "soft",
    "env": {"A": ODD},
    "user": "5:6",
}  # fmt: skip


def sample(table: Command, keyword: str) -> Any:
    """A value for a flag, as odd as the flag allows."""
    flag = table.flags[keyword]
    if flag.convert is None:
        return True
    if keyword in SAMPLES:
        return SAMPLES[keyword]
    for value in (ODD, 0, 10, [0]):
        try:
            flag.render(value)
        except (TypeError, ValueError):
            continue
        return value
    raise AssertionError(f"no sample for {keyword}")


def test_every_flag_is_taken_by_the_runtime_in_the_form_we_write_it(runtime: str) -> None:
    """``--help`` after a flag: the runtime parses what is before it, and does nothing."""
    for name, table, flags in tables(runtime):
        for flag in flags:
            keyword = flag.name[2:].replace("-", "_")
            words = table.flags[keyword].render(sample(table, keyword))
            done = run(runtime, *([name] if name else []), *words, "--help")
            assert done.returncode == 0, f"{runtime} {name} {words}: {done.stderr or done.stdout[:200]}"
            assert "Usage" in done.stdout or "USAGE" in done.stdout


def test_every_keyword_is_the_flag_with_underscores() -> None:
    for command in (GLOBAL, *COMMANDS.values()):
        for keyword, flag in command.flags.items():
            assert keyword.isidentifier()
            assert flag.name == "--" + keyword.replace("_", "-")
        named = {other for others in command.ignores.values() for other in others} | set(command.ignores)
        assert named <= set(command.flags), command.name


# -- on a real container -----------------------------------------------------------------------------------


def test_values_of_exec_arrive_unchanged_in_the_container(
    runtime_path: Path, state_root: Path, container_id: str, make_bundle: Callable[..., Path]
) -> None:
    def call(command: str, options: dict[str, Any], *positional: str) -> str:
        words = [
            *global_options({"root": state_root}),
            *command_line(command, options, positional=positional),
        ]
        done = subprocess.run(
            [runtime_path, *words], check=True, timeout=30, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if command == "exec" else None,
        )  # fmt: skip
        return (done.stdout or b"").decode()

    odd = {
        "DASH": "--tty",
        "COMMA": "a,b=c",
        "SPACE": "ends in space ",
        "LINE": "one\ntwo\n",
        "EMPTY": "",
        "Ö": "ü",
    }
    odd["PATH"] = "/bin"  # crun 1.8 takes these in place of the container's, others in addition to them
    script = "pwd; id -u; id -g; " + "".join(f'printf "[%s]" "${name}";' for name in odd if name != "Ö")
    call("create", {"bundle": make_bundle("sleep", "100")}, container_id)
    try:
        call("start", {}, container_id)
        said = call("exec", {"cwd": Path("/tmp"), "env": odd, "user": "5:6"}, container_id, "sh", "-c", script)
        assert said == "/tmp\n5\n6\n" + "".join(f"[{value}]" for name, value in odd.items() if name != "Ö")
        assert "Ö=ü" in call("exec", {"env": odd}, container_id, "env")
    finally:
        call("delete", {"force": True}, container_id)
