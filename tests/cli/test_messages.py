"""The runtimes' sentences map to their class; logs are read whatever they hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runc_async._cli.messages import _LEAD, TABLE, failure, may_have_ended, parse_log
from runc_async._errors import (
    BundleError,
    CommandError,
    ContainerExistsError,
    ContainerNotFoundError,
    ContainerNotRunningError,
    ContainerRunningError,
    InvalidContainerIdError,
    LogEntry,
    UnsupportedError,
)

DATA = Path(__file__).parents[1] / "data/runtimes"

PARENT = "unable to create new parent process: namespace path:"
INIT = "unable to start container process: error during container init:"

# As the runtimes say them; what they say of each daily failure is in `test_errors.py`.
SENTENCES = [
    ("state", "container does not exist", ContainerNotFoundError),  # runc
    ("exec", "exec failed: container does not exist", ContainerNotFoundError),
    ("state", "container `x` does not exist: open `/x/status`: No such file", ContainerNotFoundError),
    ("state", "error opening file `/x/status`: No such file", ContainerNotFoundError),  # crun 1.8
    ("state", "error opening file `/r/x/status`: Permission denied", CommandError),
    ("delete", "cannot open directory '/r/x': No such file or directory", ContainerNotFoundError),
    ("delete", "cannot open directory `/r/x`: No such file or directory", ContainerNotFoundError),
    ("create", "runc create failed: container with given ID already exists", ContainerExistsError),
    ("run", "container with id exists: x", ContainerExistsError),
    ("create", "container `x` already exists", ContainerExistsError),
    ("create", "runc create failed: invalid container ID format", InvalidContainerIdError),
    ("state", "invalid id format: a/b", InvalidContainerIdError),
    ("state", "container id cannot be empty", InvalidContainerIdError),
    ("state", "invalid character `/` in the container ID `a/b`", InvalidContainerIdError),
    ("state", "invalid container ID `..`", InvalidContainerIdError),
    ("create", "cannot create state directory for `a/b`", InvalidContainerIdError),
    ("create", "cannot create state directory for `x`", CommandError),
    ("create", f"runc create failed: lstat /r/{'x' * 256}: file name too long", InvalidContainerIdError),
    ("delete", f"cannot open directory `/r/{'x' * 256}`: File name too long", InvalidContainerIdError),
    ("state", f"open `/r/{'x' * 256}/status`: File name too long", InvalidContainerIdError),
    ("create", f"cannot create state directory for `{'x' * 256}`", InvalidContainerIdError),
    ("create", f"chdir `/{'x' * 256}/b` failed: File name too long", CommandError),
    ("kill", "container not running", ContainerNotRunningError),
    ("events", "container with id x is not running", ContainerNotRunningError),
    ("pause", "the container `x` is not running", ContainerNotRunningError),
    ("start", "container `x` is not running", ContainerNotRunningError),
    ("start", "cannot start a container that has stopped", ContainerNotRunningError),
    ("exec", "exec failed: cannot exec in a stopped container", ContainerNotRunningError),
    ("checkpoint", "Container cannot be checkpointed in stopped state", ContainerNotRunningError),
    ("exec", "exec failed: cannot exec in a paused container (use …)", ContainerNotRunningError),
    ("pause", "container paused", ContainerNotRunningError),
    ("exec", "the container `x` is paused", ContainerNotRunningError),
    ("exec", "nsexec-1[7]: failed to open /proc/7/ns/ipc: No such file or directory", ContainerNotRunningError),
    ("exec", f"exec failed: {PARENT} lstat /proc/7/ns/ipc: no such file or directory", ContainerNotRunningError),
    ("exec", "setns `mnt`: Bad file descriptor", ContainerNotRunningError),
    ("create", f"runc create failed: {PARENT} lstat /proc/7/ns/ipc: no such file or directory", BundleError),
    ("kill", "kill container: No such process", ContainerNotRunningError),
    ("kill", "container process not found, the pid was reused: No such process", ContainerNotRunningError),
    ("kill", "open pidfd: No such process", ContainerNotRunningError),
    ("kill", "process not running: No such process", ContainerNotRunningError),
    ("resume", "container not paused", CommandError),
    ("start", "cannot start an already running container", ContainerRunningError),
    ("start", "cannot start a container in the paused state", ContainerRunningError),
    ("start", "cannot open `/r/x/exec.fifo`: No such file or directory", ContainerRunningError),
    ("delete", "cannot delete container x that is not stopped: running", ContainerRunningError),
    ("delete", "container init still running", ContainerRunningError),
    ("delete", "the container `x` is not in `created` or `stopped` state", ContainerRunningError),
    ("create", "runc create failed: chdir /b: no such file or directory", BundleError),
    ("create", "chdir `/b` failed: No such file or directory", BundleError),
    ("create", "chdir `/b` failed: Permission denied", CommandError),
    ("exec", "chdir `/b`: No such file or directory", CommandError),  # the process's working directory
    ("create", "runc create failed: JSON specification file config.json not found", BundleError),
    ("create", "error loading config.json", BundleError),
    ("create", "error loading `config.json`", BundleError),
    ("create", "load `config.json`: cannot parse the data", BundleError),
    ("run", "runc run failed: unexpected EOF", BundleError),
    ("run", "runc run failed: invalid character 'o' looking for beginning of value", BundleError),
    ("run", "runc run failed: json: cannot unmarshal array into Go value of type specs.Spec", BundleError),
    ("update", "unexpected EOF", CommandError),  # the resources
    ("create", "runc create failed: process property must not be empty", BundleError),
    ("create", "runc create failed: args must not be empty", BundleError),
    ("create", "runc create failed: Cwd must be an absolute path", BundleError),
    ("create", "runc create failed: root must be specified", BundleError),
    ("create", "invalid config file, no 'root' block specified", BundleError),
    ("create", 'runc create failed: malformed spec file: duplicated ns {"pid" ""}', BundleError),
    ("create", 'runc create failed: namespace {"bogus" ""} does not exist', BundleError),
    ("create", "duplicate namespace type: `pid`", BundleError),
    ("create", "runc create failed: rootless container requires user namespaces", BundleError),
    ("create", "runc create failed: invalid rootfs: stat /x: no such file or directory", BundleError),
    ("create", "make `/x` private: No such file or directory", BundleError),
    ("create", "readlink ``: No such file or directory", BundleError),
    ("create", "cannot set swap limit without the memory limit", BundleError),
    ("create", "the `network limits` not supported on cgroupv2", BundleError),
    ("create", "runc create failed: invalid mount {…}: bind mounts cannot have any options", BundleError),
    ("create", f"runc create failed: {INIT} unable to apply apparmor profile: x: no such file or directory",
     BundleError),
    ("create", "override of the mount destination `/proc` is not allowed", BundleError),
    ("create", f'runc create failed: {INIT} exec: "": executable file not found in $PATH', BundleError),
    ("create", "open `/proc/sys/net/nosuch`: No such file or directory", BundleError),
    ("create", 'Incorrect Usage: invalid value "x" for flag -preserve-fds: parse error', CommandError),
    ("create", 'invalid value "x" for flag -preserve-fds: parse error', CommandError),
    ("create", f'runc create failed: {INIT} error mounting "/x" to rootfs: no such file or directory', BundleError),
    ("create", f'runc create failed: {INIT} error mounting "/x" to rootfs: permission denied', CommandError),
    ("create", 'unified resource "../x" must be a file name (no slashes)', BundleError),
    ("create", "netlink error while looking for interface `nosuch0`: No such device", BundleError),
    ("create", "statfs `/sys/fs/resctrl`: No such file or directory", BundleError),
    ("run", "mount `x` to `y`: Not a directory", BundleError),
    ("run", "mount `x` to `y`: Permission denied", CommandError),
    ("run", "runc run failed: unable to start container process: fork/exec /proc/self/exe: cannot allocate memory",
     CommandError),
    ("create", "error executing hook `/no/such/hook` (exit code: 1)", CommandError),
    ("update", "write to `memory.limit_in_bytes`: Invalid argument", CommandError),
    ("run", "open `rootfs`: No such file or directory", BundleError),
    ("create", "open `/nope/pid` for writing: No such file or directory", CommandError),
    ("run", 'runc run failed: unable to start: exec: "x": executable file not found in $PATH', CommandError),
    ("run", "executable file `x` not found in $PATH: No such file or directory", CommandError),
    # gVisor's runsc
    ("state", "loading container: file does not exist", ContainerNotFoundError),
    ("delete", 'loading container "y": file does not exist', ContainerNotFoundError),
    ("exec", "loading sandbox: file does not exist", ContainerNotFoundError),
    ("create", "creating container: cannot lock container metadata file: container already exists",
     ContainerExistsError),
    ("create", "creating container: invalid container id: a/b", InvalidContainerIdError),
    ("create", 'reading spec: error opening spec file "/b/config.json": no such file', BundleError),
    ("run", "reading spec: Spec.Process.Arg must be defined: {}", BundleError),
    ("exec", 'executing processes for container: executing command "x" in sandbox: container "y" not started',
     ContainerNotRunningError),
    ("exec", 'executing processes for container: cannot execute in container "x" in state stopped',
     ContainerNotRunningError),
    ("exec", 'executing processes for container: cannot execute in container "x" in state paused',
     ContainerNotRunningError),
    ("exec", 'executing processes for container: executing command "x" in sandbox: error finding executable "x"',
     CommandError),
    ("ps", 'getting processes for container: cannot get processes of container "x" in state stopped',
     ContainerNotRunningError),
    ("pause", 'pause failed: cannot pause container "x" in state stopped', ContainerNotRunningError),
    ("start", 'starting container: cannot start container "x" in state stopped', ContainerNotRunningError),
    ("start", 'starting container: cannot start container "x" in state running', ContainerRunningError),
    ("kill", 'cannot signal container "x" in state paused', ContainerNotRunningError),
    ("kill", "connecting to control server at PID 7: connection refused", ContainerNotRunningError),
    ("pause", "openat2 /sys/fs/cgroup/freezer/x/freezer.state: no such file or directory", CommandError),
]  # fmt: skip


@pytest.mark.parametrize(("command", "sentence", "wanted"), SENTENCES)
def test_a_known_sentence_gets_its_class(command: str, sentence: str, wanted: type[CommandError]) -> None:
    error = failure(["runc", command, "x"], 1, log=[LogEntry("error", sentence)])
    assert type(error) is wanted
    assert error.message == sentence


def test_every_row_of_the_table_is_some_runtimes_sentence() -> None:
    said = [(command, sentence) for command, sentence, _ in SENTENCES]
    said += [
        ("create", each) for path in DATA.glob("*/rejections.json") for each in json.loads(path.read_text()).values()
    ]
    cores = [(command, _LEAD.sub("", sentence, count=1)) for command, sentence in said]
    for row in TABLE:
        pattern = re.compile(row.sentence, re.IGNORECASE)
        assert any(pattern.match(core) and command in (row.commands or {command}) for command, core in cores), row


@pytest.mark.parametrize(
    ("entries", "wanted", "kind"),
    [
        (
            ["fatal:nsexec-1[7]: failed to setns into net namespace: Invalid argument",
             "fatal:nsexec-0[6]: failed to sync with stage-1: next state: Success",
             "error:runc create failed: unable to start container process: can't get final child's PID from pipe: EOF"],
            0, BundleError,
        ),
        (
            ["error:setns `mnt`: Bad file descriptor", "error:fail startup"],
            0, CommandError,
        ),
        (["error:fail startup", "error:open `/no/such`: No such file or directory"], 1, BundleError),
        (["error:runc create failed: can't get final child's PID from pipe: EOF"], 0, CommandError),
    ],
)  # fmt: skip
def test_the_reason_counts_and_not_what_follows_from_it(
    entries: list[str], wanted: int, kind: type[CommandError]
) -> None:
    log = [LogEntry(*entry.split(":", 1)) for entry in entries]
    error = failure(["runc", "create", "x"], 1, log=log)
    assert (error.message, type(error)) == (log[wanted].message, kind)


@pytest.mark.parametrize(
    ("message", "doubtful"),
    [
        ("exec failed: unable to start container process: read init-p: connection reset by peer", True),
        (
            "exec failed: unable to start container process: error writing config to pipe: broken pipe",
            True,
        ),
        ("exec failed: unable to start container process: procReady not received", True),
        ("exec failed: unable to start container process: error executing setns process: signal: broken pipe", True),
        ("nsexec-1[7]: unable to spawn stage-2: Cannot allocate memory", True),
        ("nsexec-0[7]: failed to sync with child: next state: Connection reset by peer", True),
        ("write to sync socket: Broken pipe", True),
        ("read pipe failed", True),
        ("fork: Cannot allocate memory", True),
        ('exec failed: unable to start container process: exec: "x": executable file not found in $PATH', False),
        ("exec failed: cannot exec in a stopped container", False),  # is one already
        ("container does not exist", False),
    ],
)
def test_an_exec_whose_container_may_have_ended_is_told_from_other_failures(message: str, doubtful: bool) -> None:
    assert may_have_ended(failure(["runc", "exec", "x"], 255, log=[LogEntry("error", message)])) is doubtful


UNSUPPORTED = [
    ("flag provided but not defined: -pidfd-socket", "runc 1.1.5 create has no flag --pidfd-socket"),
    (
        "Incorrect Usage: flag provided but not defined: -pidfd-socket",
        "runc 1.1.5 create has no flag --pidfd-socket",
    ),
    ("crun: unrecognized option '--pidfd-socket=/x'", "runc 1.1.5 create has no flag --pidfd-socket"),
    ("create: invalid option -- 'Z'", "runc 1.1.5 create has no flag -Z"),
    ("No help topic for 'mounts'", "runc 1.1.5 has no command mounts"),
    ("unknown command mounts", "runc 1.1.5 has no command mounts"),
    (
        "flag provided but not defined: -frob\nUsage: runsc <flags>\n\n\tcreate\n",
        "runc 1.1.5 create has no flag --frob",
    ),
    ("Usage: runsc <flags> <subcommand>\n\nSubcommands:\n", "runc 1.1.5 has no command create"),
    ('unknown signal "37"', "runc 1.1.5 kill cannot send signal 37"),
]


@pytest.mark.parametrize(("said", "wanted"), UNSUPPORTED)
@pytest.mark.parametrize("where", ["log", "stderr"])
def test_an_unsupported_flag_or_command_is_named_with_the_version(said: str, wanted: str, where: str) -> None:
    log = [LogEntry("error", said.partition("\n")[0])] if where == "log" else []
    stderr = b"" if log else f"{said}\nTry `crun --help' or `crun --usage' for more information.\n".encode()
    error = failure(["/usr/sbin/runc", "create", "x"], 1, log=log, stderr=stderr, version="1.1.5")
    assert type(error) is UnsupportedError
    assert error.message == wanted


def test_an_unsupported_flag_is_known_from_stdout_alone() -> None:
    usage = b"Incorrect Usage. flag provided but not defined: -nosuch\n\nNAME:\n   runc - ...\n"
    error = failure(["runc", "--nosuch", "state", "x"], 1, log=(), stdout=usage)
    assert type(error) is UnsupportedError


def test_the_last_error_decides_not_a_warning_after_it() -> None:
    log = [
        LogEntry("error", "first"),
        LogEntry("error", "container does not exist"),
        LogEntry("warning", "also"),
    ]
    error = failure(["runc", "state", "x"], 1, log=log, stderr=b"noise\n")
    assert (type(error), error.message, error.log) == (
        ContainerNotFoundError,
        "container does not exist",
        tuple(log),
    )


def test_without_an_error_in_the_log_the_last_word_on_stderr_decides() -> None:
    stderr = b'first\ntime="2026-11-24T12:03:02Z" level=error msg="say \\"why\\""\n'
    assert failure(["runc", "state", "x"], 1, log=[LogEntry("warning", "w")], stderr=stderr).message == 'say "why"'
    assert failure(["runc", "state", "x"], 1, log=(), stderr=b"first\nlast\n\n").message == "last"


@pytest.mark.parametrize(
    "said",
    [
        "open /proc/self/fd/11: no such file or directory",  # runc
        "open log file `/proc/self/fd/11`: No such file or directory",  # crun
        "open /proc/self/fd/5: no such device or address",
    ],
)
def test_a_launcher_that_closes_descriptors_is_blamed(said: str) -> None:
    error = failure(["sudo", "runc", "list"], 1, log=(), stderr=said.encode())
    assert type(error) is CommandError
    assert error.message.startswith(
        "the runtime did not get the descriptors of this call: what it is launched by closes"
    )
    assert said in error.message


def test_silence_is_said_as_such() -> None:
    assert failure(["runc", "state", "x"], 7, log=()).message == "the runtime said nothing"
    assert failure(["runc", "state", "x"], -9, log=()).message == "the runtime was killed by signal 9"


def test_a_log_of_json_lines_of_json_over_several_lines_and_of_text_is_read_in_order() -> None:
    log = (
        b'{"level":"warning","msg":"one","error":"cause","time":"2026-11-24T12:03:02Z"}\n'
        b'{\n  "msg": "two `\\/x`",\n  "level": "error",\n  "time": "2026-11-24T12:03:09.4Z"\n}\n'
        b'time="2026-11-24T12:03:02Z" level=error msg="three \\"q\\""\n'
        b"four: \n  where\n ---^\n"
        b"\n"
        b"five\n"
        b'{"level":"error","msg":"cut o'
    )
    assert parse_log(log) == (
        LogEntry("warning", "one: cause", "2026-11-24T12:03:02Z"),
        LogEntry("error", "two `/x`", "2026-11-24T12:03:09.4Z"),
        LogEntry("error", 'three "q"', "2026-11-24T12:03:02Z"),
        LogEntry("", "four:\n  where\n ---^"),
        LogEntry("", "five"),
        LogEntry("", '{"level":"error","msg":"cut o'),
    )


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe", b'{"msg": 5}', b"{}", b'{"a":' * 5000, b"time=", b'level=error msg="\\x1b"', b"[1]",
        b'{"msg":"\xc3"}',
    ],
)  # fmt: skip
def test_a_broken_line_is_kept_as_an_entry_and_the_next_one_read(line: bytes) -> None:
    *first, last = parse_log(line + b'\n{"level":"error","msg":"fine"}\n')
    assert last == LogEntry("error", "fine")
    assert len(first) == 1
    assert first[0].message


@given(st.lists(st.one_of(st.binary(), st.sampled_from([b"{", b'{"msg":"a"}', b'time="', b"msg=", b"\n", b"}"]))))
def test_no_log_whatever_raises_or_loses_a_line(parts: list[bytes]) -> None:
    log = b"".join(parts)
    assert bool(parse_log(log)) == bool(log.decode(errors="replace").strip())
