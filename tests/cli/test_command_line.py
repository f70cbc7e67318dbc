"""Command lines are written as the runtimes take them, and wrong values are refused before anything is started."""

from __future__ import annotations

import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runc_async._cli.command_line import call_line, command_line, global_options, signal_argument
from runc_async._cli.commands import COMMANDS

from .test_commands import sample

# -- what is written ---------------------------------------------------------------------------------------

WRITTEN: list[tuple[str, dict[str, Any], tuple[str, ...], list[str]]] = [
    ("state", {}, ("c",), ["state", "c"]),
    ("create", {"bundle": Path("/b"), "no_pivot": True, "preserve_fds": 2}, ("c",),
     ["create", "--bundle=/b", "--no-pivot", "--preserve-fds=2", "c"]),
    ("create", {"bundle": None, "no_pivot": False}, ("c",), ["create", "c"]),
    ("run", {"keep": True, "detach": True, "no_subreaper": True, "pidfd_socket": "s"}, ("c",),
     ["run", "--pidfd-socket=s", "--no-subreaper", "--detach", "--keep", "c"]),
    ("exec", {"env": ["A=1", "B=x y "], "tty": True}, ("c", "ls", "-l", "--", ""),
     ["exec", "--env=A=1", "--env", "B=x y ", "--tty", "c", "ls", "-l", "--", ""]),
    ("exec", {"env": {"A": "1"}, "cap": ("CAP_KILL",), "additional_gids": [1, 2], "user": 5}, ("c", "x"),
     ["exec", "--env=A=1", "--user=5", "--additional-gids=1", "--additional-gids=2", "--cap=CAP_KILL",
      "c", "x"]),
    ("exec", {"process": "/proc/self/fd/9", "cgroup": "sub", "ignore_paused": True}, ("c",),
     ["exec", "--cgroup=sub", "--ignore-paused", "--process=/proc/self/fd/9", "c"]),
    ("events", {"interval": 0.1}, ("c",), ["events", "--interval=0.1s", "c"]),
    ("events", {"interval": 5}, ("c",), ["events", "--interval=5s", "c"]),
    ("events", {"interval": 1e-9}, ("c",), ["events", "--interval=0.000000001s", "c"]),
    ("events", {"interval": 86400.0}, ("c",), ["events", "--interval=86400s", "c"]),
    ("kill", {"all": True}, ("c", "9"), ["kill", "--all", "c", "9"]),
    ("ps", {"format": "table"}, ("c", "-e", "-o", "pid"), ["ps", "--format=table", "c", "-e", "-o", "pid"]),
    ("update", {"memory": "512m", "memory_swap": -1, "cpu_idle": 1, "cpuset_cpus": "0-1"}, ("c",),
     ["update", "--cpuset-cpus=0-1", "--cpu-idle=1", "--memory=536870912", "--memory-swap=-1", "c"]),
    ("update", {"memory": "1.5 GiB", "memory_swap": "-1", "memory_reservation": 7}, ("c",),
     ["update", "--memory=1610612736", "--memory-reservation=7", "--memory-swap=-1", "c"]),
    ("update", {"resources": "-", "l3_cache_schema": "L3:0=f"}, ("c",),
     ["update", "--resources=-", "--l3-cache-schema=L3:0=f", "c"]),
    ("checkpoint", {"image_path": "/i", "empty_ns": ["net"], "status_fd": 7, "network_lock": "skip"}, ("c",),
     ["checkpoint", "--image-path=/i", "--empty-ns=net", "--network-lock", "skip", "--status-fd=7", "c"]),
    ("restore", {"bundle": "/b", "lsm_profile": "selinux:x", "detach": True}, ("c",),
     ["restore", "--bundle=/b", "--detach", "--lsm-profile=selinux:x", "c"]),
    ("list", {"format": "json"}, (), ["list", "--format=json"]),
    ("features", {}, (), ["features"]),
]  # fmt: skip


@pytest.mark.parametrize(("command", "options", "positional", "words"), WRITTEN)
def test_a_command_line_is_written_flag_by_flag(
    command: str, options: dict[str, Any], positional: tuple[str, ...], words: list[str]
) -> None:
    assert command_line(command, options, positional=positional) == words


def test_global_options_are_written_and_extra_arguments_come_last() -> None:
    options = {
        "debug": True,
        "log": "/proc/self/fd/3",
        "root": Path("/r"),
        "rootless": False,
        "systemd_cgroup": None,
    }
    assert global_options(options, ["--new=1"]) == [
        "--debug", "--log=/proc/self/fd/3", "--root=/r", "--rootless=false", "--new=1",
    ]  # fmt: skip
    assert global_options({"rootless": "auto"}) == ["--rootless=auto"]
    assert global_options({"rootless": None}) == []


def test_extra_arguments_stand_between_the_flags_and_the_id() -> None:
    assert command_line("delete", {"force": True}, positional=["c"], extra_args=("--new", "1")) == [
        "delete", "--force", "--new", "1", "c",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "word"),
    [(9, "9"), (0, "0"), (signal.SIGTERM, "15"), ("KILL", "9"), ("sigterm", "15"), ("SIGIOT", "6"), ("POLL", "29"),
     ("SIGRTMIN+3", str(signal.SIGRTMIN + 3)), ("RTMAX-1", str(signal.SIGRTMAX - 1)), ("CLD", "17"), ("PWR", "30")],
)  # fmt: skip
def test_a_signal_is_written_as_its_number(value: Any, word: str) -> None:
    assert signal_argument(value) == word


# -- what is refused ---------------------------------------------------------------------------------------

REFUSED: list[tuple[type[Exception], str, dict[str, Any], tuple[str, ...], str]] = [
    (TypeError, "create", {"no_such": 1}, ("c",), "unexpected keyword argument 'no_such'"),
    (TypeError, "create", {"bundle": 5}, ("c",), "bundle must be str or os.PathLike, not int"),
    (TypeError, "create", {"bundle": b"/b"}, ("c",), "bundle"),
    (TypeError, "create", {"no_pivot": "yes"}, ("c",), "no_pivot must be bool"),
    (TypeError, "create", {"no_pivot": 1}, ("c",), "no_pivot must be bool"),
    (TypeError, "create", {"preserve_fds": True}, ("c",), "preserve_fds must be int"),
    (TypeError, "create", {"preserve_fds": 1.0}, ("c",), "preserve_fds must be int"),
    (TypeError, "events", {"interval": "5s"}, ("c",), "interval must be seconds"),
    (TypeError, "events", {"interval": True}, ("c",), "interval must be seconds"),
    (TypeError, "exec", {"env": 5}, ("c", "x"), "env must be a sequence"),
    (TypeError, "exec", {"env": {"A": 1}}, ("c", "x"), "env must be str"),
    (TypeError, "exec", {"env": b"A=1"}, ("c", "x"), "env must be a sequence"),
    (TypeError, "exec", {"additional_gids": ["1"]}, ("c", "x"), "additional_gids must be int"),
    (ValueError, "create", {"bundle": ""}, ("c",), "bundle is empty"),
    (ValueError, "create", {"bundle": "a\0b"}, ("c",), "bundle has a NUL"),
    (ValueError, "create", {"preserve_fds": -1}, ("c",), "preserve_fds must be at least 0"),
    (ValueError, "create", {"bundle": "-x "}, ("c",), "bundle begins with a dash"),
    (ValueError, "events", {"interval": 0}, ("c",), "interval must be more than 0"),
    (ValueError, "events", {"interval": -1.0}, ("c",), "interval"),
    (ValueError, "events", {"interval": math.nan}, ("c",), "interval"),
    (ValueError, "events", {"interval": math.inf}, ("c",), "interval"),
    (ValueError, "events", {"interval": 1e-10}, ("c",), "interval"),
    (ValueError, "events", {"interval": 1e10}, ("c",), "interval"),
    (ValueError, "exec", {"env": ["A"]}, ("c", "x"), "env must be NAME=value"),
    (ValueError, "exec", {"env": ["=1"]}, ("c", "x"), "env must be NAME=value"),
    (ValueError, "exec", {"env": {"A=B": "1"}}, ("c", "x"), "env has a name with an equals sign"),
    (ValueError, "exec", {"user": "root"}, ("c", "x"), "user must be uid or uid:gid"),
    (ValueError, "exec", {"user": -1}, ("c", "x"), "user"),
    # runc takes the lower 32 bits: this one would be root
    (ValueError, "exec", {"user": 1 << 32}, ("c", "x"), "user must be from 0 to 4294967294"),
    (ValueError, "exec", {"user": "5:4294967295"}, ("c", "x"), "user must be from 0"),
    (ValueError, "exec", {"user": "1:2:3"}, ("c", "x"), "user must be uid or uid:gid"),
    (TypeError, "exec", {"user": True}, ("c", "x"), "user must be int, not bool"),
    (ValueError, "exec", {"additional_gids": [1 << 32]}, ("c", "x"), "additional_gids must be from 0"),
    (ValueError, "update", {"blkio_weight": 0}, ("c",), "blkio_weight must be from 10 to 1000"),
    (ValueError, "update", {"memory": -2}, ("c",), "memory"),
    (ValueError, "update", {"memory": "much"}, ("c",), "memory must be a number of bytes"),
    (ValueError, "update", {"memory": 1 << 63}, ("c",), "memory must be from -1 to 9223372036854775807"),
    (ValueError, "update", {"memory": "8388608T"}, ("c",), "memory must be from -1"),
    (ValueError, "update", {"memory": "\N{ARABIC-INDIC DIGIT FIVE}"}, ("c",), "memory must be a number of bytes"),
    (TypeError, "update", {"memory": 1.5}, ("c",), "memory must be bytes as int, or a str with a unit, not float"),
    (TypeError, "update", {"memory": True}, ("c",), "memory must be bytes"),
    (ValueError, "update", {"cpu_quota": -2}, ("c",), "cpu_quota must be from -1"),
    (ValueError, "update", {"cpu_period": 1 << 64}, ("c",), "cpu_period must be from 0 to 18446744073709551615"),
    (ValueError, "update", {"cpuset_cpus": ""}, ("c",), "cpuset_cpus is empty"),
    (ValueError, "list", {"format": "xml"}, (), "format must be one of table, json"),
    # ids
    (ValueError, "state", {}, ("",), "empty"),
    (ValueError, "state", {}, ("--root",), "dash"),
    (ValueError, "state", {}, ("-",), "dash"),
    (ValueError, "state", {}, (" c",), "white space"),
    (ValueError, "state", {}, ("c\n",), "white space"),
    (ValueError, "state", {}, ("c\0",), "NUL"),
    (ValueError, "delete", {"force": True}, ("..",), "path"),
    (ValueError, "delete", {"force": True}, ("a/../..",), "path"),
    (TypeError, "state", {}, (5,), "str"),  # type: ignore[arg-type]
    (TypeError, "state", {}, (), "arguments"),
    (TypeError, "state", {}, ("a", "b"), "arguments"),
    # arguments
    (ValueError, "exec", {}, ("c",), "what shall be executed"),
    (ValueError, "exec", {}, ("c", ""), "first argument"),
    (ValueError, "exec", {}, ("c", "--"), "first argument"),
    (ValueError, "exec", {}, ("c", "x", "\0"), "NUL"),
    # what the runtime would ignore
    (ValueError, "exec", {"process": "/p"}, ("c", "ls"), "beside process"),
    (ValueError, "events", {"stats": True, "interval": 1.0}, ("c",), "ignores interval beside stats"),
    (ValueError, "list", {"quiet": True, "format": "json"}, (), "ignores format beside quiet"),
    (ValueError, "ps", {"format": "json"}, ("c", "-e"), "beside format"),
    (ValueError, "kill", {"regex": True, "all": True}, ("c",), "ignores all beside regex"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "command", "options", "positional", "says"), REFUSED)
def test_a_wrong_value_is_refused_with_a_sentence(
    error: type[Exception], command: str, options: dict[str, Any], positional: tuple[str, ...], says: str
) -> None:
    with pytest.raises(error, match=re.escape(says)):
        command_line(command, options, positional=positional)


@pytest.mark.parametrize("command", ["exec", "update"])
def test_each_part_is_refused_beside_the_whole_and_taken_without_it(command: str) -> None:
    table = COMMANDS[command]
    ((whole, parts),) = table.ignores.items()
    after = ["c", "ls"] if command == "exec" else ["c"]
    assert len(parts) > 8
    for part in parts:
        value = sample(table, part)
        with pytest.raises(ValueError, match=f"ignores {part} beside {whole}"):
            command_line(command, {whole: "/p", part: value}, positional=["c"])
        assert len(command_line(command, {part: value}, positional=after)) == 2 + len(after)
        assert command_line(command, {whole: "/p", part: None}, positional=["c"]) == [
            command,
            f"--{whole}=/p",
            "c",
        ]


@pytest.mark.parametrize(
    ("options", "says"),
    [({"debug": True, "log_level": "error"}, "log_level"),
     ({"systemd_cgroup": True, "cgroup_manager": "cgroupfs"}, "cgroup_manager")],
)  # fmt: skip
def test_global_options_that_contradict_each_other_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"ignores {says} beside"):
        global_options(options)


@pytest.mark.parametrize(
    ("extra", "error"), [("--x", TypeError), (5, TypeError), ([5], TypeError), (["a\0"], ValueError)]
)
def test_extra_arguments_must_be_a_sequence_of_clean_strings(extra: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="extra_args"):
        command_line("state", {}, positional=["c"], extra_args=extra)
    with pytest.raises(error, match="extra_args"):
        global_options({}, extra)


@pytest.mark.parametrize(
    ("value", "error"),
    [(-1, ValueError), (65, ValueError), ("", ValueError), ("-9", ValueError), ("KILL 9", ValueError),
     ("9", ValueError), ("RTMIN+31", ValueError), ("TERM+1", ValueError), ("SIGTREM", ValueError),
     (True, TypeError), (False, TypeError), (9.0, TypeError), (0.0, TypeError), (None, TypeError)],
)  # fmt: skip
def test_what_is_no_signal_is_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="signal"):
        signal_argument(value)


@given(st.text())
def test_whatever_text_is_given_is_one_value_or_is_refused(text: str) -> None:
    try:
        words = command_line("exec", {"cwd": text}, positional=["c", "x"])
    except ValueError:
        assert not text or "\0" in text or (text[0] == "-" and text[-1].isspace())
    else:
        assert words in (["exec", f"--cwd={text}", "c", "x"], ["exec", "--cwd", text, "c", "x"])
        assert len(words) == 4 or not text.startswith("-")


@given(st.floats(min_value=1e-9, max_value=9e9))
def test_a_duration_is_written_without_exponent_and_right_to_the_nanosecond(seconds: float) -> None:
    word = command_line("events", {"interval": seconds}, positional=["c"])[1]
    assert (match := re.fullmatch(r"--interval=(\d+(?:\.\d{1,9})?)s", word))
    assert float(match[1]) == pytest.approx(seconds, abs=1e-9)


# -- any command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words", "options", "line"),
    [
        ("mounts", ["add", "c", "mounts.json"], {}, "mounts add c mounts.json"),
        ("debug", ["c"], {"stacks": True, "strace": False, "ps": None}, "debug --stacks c"),
        ("debug", ["c"], {"log_level": "info", "profile_cpu": Path("/p")}, "debug --log-level=info --profile-cpu=/p c"),
        ("debug", [], {"signal": 5, "ratio": 0.5, "pid": [1, 2]}, "debug --signal=5 --ratio=0.5 --pid=1 --pid=2"),
        ("state", ["c"], {}, "state c"),
        ("events", ["c"], {"interval": 2.5}, "events --interval=2.5s c"),
        ("newer", ["-x", "--", "y"], {}, "newer -x -- y"),
    ],
)  # fmt: skip
def test_any_command_is_written(command: str, words: list[str], options: dict[str, Any], line: str) -> None:
    assert " ".join(call_line(command, options, positional=words)) == line
    assert call_line(command, options, positional=words, extra_args=["--extra"])[-1 - len(words)] == "--extra"


@pytest.mark.parametrize(
    ("error", "command", "words", "options", "says"),
    [
        (ValueError, "", [], {}, "command is empty"),
        (ValueError, "--root=/x", [], {}, "command must not begin with a dash"),
        (TypeError, 5, [], {}, "command must be str"),
        (ValueError, "run", ["c"], {}, "run starts something: use the method run"),
        (ValueError, "exec", ["c", "x"], {}, "use the method exec"),
        (ValueError, "mounts", ["add", "", "f"], {}, "container id is empty"),
        (ValueError, "mounts", ["add", "../c", "f"], {}, "must not be a path"),
        (TypeError, "mounts", ["add", "c"], {}, "mounts takes 3 to 3 arguments"),
        (TypeError, "newer", [5], {}, "each argument must be str"),
        (ValueError, "newer", ["a\0"], {}, "NUL"),
        (ValueError, "newer", [], {"x": "a\0"}, "x has a NUL"),
        (TypeError, "newer", [], {"x": object()}, "x must be str or os.PathLike"),
        (TypeError, "state", ["c"], {"nosuch": 1}, "unexpected keyword argument"),
    ],
)
def test_what_no_command_can_have_is_refused(
    error: type[Exception], command: Any, words: Any, options: Any, says: str
) -> None:
    with pytest.raises(error, match=says):
        call_line(command, options, positional=words)
