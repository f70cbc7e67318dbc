"""What one runtime says in another way than runc, and what is refused before it is started."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from runc_async import UnsupportedError
from runc_async._cli.command_line import call_line, command_line, signal_argument
from runc_async._cli.commands import COMMANDS, STARTING
from runc_async._cli.dialects import DIALECTS, RUNC, find_dialect

RUNSC = DIALECTS["runsc"]
OWN = {
    "checkpoint", "debug", "do", "flags", "help", "install", "mitigate", "read-control", "restore", "symbolize",
    "trace", "uninstall", "usage", "wait", "write-control", "boot", "gofer", "umount",
}  # fmt: skip
"""Commands of runsc without a meaning for this package."""


def test_known_runtimes_are_found_by_their_name() -> None:
    assert find_dialect("runc", "1.3.6") is RUNC
    assert find_dialect("sysbox-runc", "0.6.4") is RUNC
    assert find_dialect("runsc", "0.0~20221219.0") is RUNSC
    assert find_dialect("somerunc") is find_dialect("") is None


@pytest.mark.parametrize("name", ["runsc", "youki"])
def test_a_duration_is_a_whole_number_of_seconds(name: str) -> None:
    for seconds, word in ((5.0, "5"), (0.01, "1"), (2.2, "3"), (1, "1")):
        line = command_line("events", {"interval": seconds}, positional=["c"], dialect=DIALECTS[name])
        assert line == ["events", f"--interval={word}", "c"]
    with pytest.raises(ValueError, match="interval must be more than 0"):
        command_line("events", {"interval": 0}, positional=["c"], dialect=DIALECTS[name])


@pytest.mark.parametrize(
    ("name", "command", "options", "says"),
    [
        ("runsc", "create", {"preserve_fds": 1}, "runsc create has no flag --preserve-fds"),
        ("runsc", "run", {"preserve_fds": 1}, "runsc run has no flag --preserve-fds"),
        ("runsc", "exec", {"tty": True}, "runsc exec has no flag --tty"),
        ("runsc", "checkpoint", {"image_path": "/i"}, "runsc has no command checkpoint"),
        ("runsc", "update", {"pids_limit": 5}, "runsc has no command update"),
        ("runsc", "features", {}, "runsc has no command features"),
        ("youki", "create", {"pidfd_socket": "/s"}, "youki create has no flag --pidfd-socket"),
        ("youki", "restore", {"image_path": "/i"}, "youki has no command restore"),
    ],
)
def test_what_a_runtime_lacks_is_refused_by_name(
    name: str, command: str, options: dict[str, object], says: str
) -> None:
    words = {"features": [], "exec": ["c", "true"]}.get(command, ["c"])
    with pytest.raises(UnsupportedError) as caught:
        command_line(command, options, positional=words, dialect=DIALECTS[name])
    assert caught.value.message == says
    assert str(caught.value) == f"{says} (status 1): {name} {command}"
    assert command_line(command, options, positional=words)[0] == command  # runc is asked itself
    if command not in STARTING:
        with pytest.raises(UnsupportedError, match=says):
            call_line(command, options, positional=words, dialect=DIALECTS[name])


def test_newer_releases_of_gvisor_pass_descriptors_on() -> None:
    newer = find_dialect("runsc", "release-20260817.0")
    assert newer is not None
    line = command_line("run", {"preserve_fds": 2}, positional=["c"], dialect=newer)
    assert line == ["run", "--pass-fd=3:3", "--pass-fd=4:4", "c"]
    with pytest.raises(UnsupportedError, match="runsc create has no flag --preserve-fds"):
        command_line("create", {"preserve_fds": 2}, positional=["c"], dialect=newer)


def test_gvisor_has_no_real_time_signals() -> None:
    assert command_line("kill", {}, positional=["c", signal_argument("USR2")], dialect=RUNSC) == ["kill", "c", "12"]
    for value, number in (("RTMIN+3", 37), (64, 64), (0, 0)):
        with pytest.raises(UnsupportedError, match=f"runsc kill cannot send signal {number} "):
            command_line("kill", {}, positional=["c", signal_argument(value)], dialect=RUNSC)


def test_the_state_of_a_container_is_where_the_runtime_keeps_it() -> None:
    assert RUNC.state_paths("/r", "c") == ["/r/c"]
    assert RUNSC.state_paths("/r", "c") == ["/r/c_sandbox:c.lock", "/r/c_sandbox:c.state"]
    environment = {"XDG_RUNTIME_DIR": "/x"}
    assert (RUNC.default_root(environment, 0), RUNC.default_root(environment, 5)) == ("/run/runc", "/x/runc")
    assert RUNC.default_root({}, 5) is None
    assert (RUNSC.default_root(environment, 0), RUNSC.default_root({}, 0)) == ("/x/runsc", "/var/run/runsc")


def test_the_table_of_gvisor_is_its_help() -> None:
    if shutil.which("runsc") is None:
        pytest.skip("runsc is not installed: `apt-get install runsc`")
    assert RUNSC.flags is not None

    def ask(*words: str) -> str:
        return subprocess.run(["runsc", *words], capture_output=True, text=True, check=False).stdout

    commands = set(re.findall(r"^\t([a-z-]+) ", ask("help"), re.MULTILINE))
    assert {*RUNSC.flags} == (commands - OWN) & {*COMMANDS}
    for command, flags in RUNSC.flags.items():
        said = {f"--{flag}" for flag in re.findall(r"\s\s-([a-z-]+)", ask("help", command))}
        known = {flag.name for flag in COMMANDS[command].flags.values()}
        if command == "state":  # "runsc help state" is about another command
            said = set()
        assert flags == said & known, command
