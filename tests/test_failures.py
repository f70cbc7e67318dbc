"""Every daily failure, provoked on the real runtime, maps to its class; logs are read whatever they hold."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from runc_async._failures import TABLE, failure, parse_log

from ._leaks import CGROUPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534


@dataclass
class Driver:
    """Runs the runtime itself, without the client, and makes the error of a failed call."""

    runtime: Path
    root: Path
    log: Path
    new_id: Callable[[], str]
    make_bundle: Callable[..., Path]

    def call(self, *args: object, user: int | None = None) -> CommandError | None:
        """The error of one call, or None where it succeeds."""
        self.log.write_bytes(b"")
        self.log.chmod(0o666)
        argv = [str(self.runtime), "--root", str(self.root), "--log", str(self.log), "--log-format", "json"]
        argv += [str(arg) for arg in args]
        # Files, not pipes: a created container keeps what it is given.
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd="/", check=False,
                timeout=30, user=user, group=user, extra_groups=None if user is None else [],
            )  # fmt: skip
            stdout.seek(0)
            stderr.seek(0)
            if done.returncode == 0:
                return None
            log = parse_log(self.log.read_bytes())
            return failure(argv, done.returncode, log=log, stdout=stdout.read(), stderr=stderr.read())

    def created(self, *args: str, **spec: Any) -> str:
        container = self.new_id()
        assert self.call("create", "--bundle", self.make_bundle(*(args or ("sleep", "100")), **spec), container) is None
        return container

    def running(self, *args: str) -> str:
        container = self.created(*args)
        assert self.call("start", container) is None
        return container

    def state(self, container: str) -> dict[str, Any]:
        done = subprocess.run([self.runtime, "--root", self.root, "state", container], capture_output=True, check=True)
        return json.loads(done.stdout)

    def stopped(self) -> str:
        container = self.running("true")
        deadline = time.monotonic() + 10
        while self.state(container)["status"] != "stopped":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return container

    def paused(self) -> str:
        container = self.running()
        assert self.call("pause", container) is None
        return container


@pytest.fixture
def driver(
    runtime_path: Path,
    state_root: Path,
    tmp_path: Path,
    new_id: Callable[[], str],
    make_bundle: Callable[..., Path],
) -> Iterator[Driver]:
    ids: list[str] = []

    def noted_id() -> str:
        ids.append(new_id())
        return ids[-1]

    one = Driver(runtime_path, state_root, tmp_path / "log", noted_id, make_bundle)
    yield one
    state_root.chmod(0o700)
    for folder in list(state_root.iterdir()):
        one.call("delete", "--force", folder.name)
    # crun leaves a cgroup after a failed create, and a plain folder where a unified hierarchy is not mounted.
    for container in ids:
        remove_cgroups(container)


def without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(spec: dict[str, Any]) -> None:
        for key in keys:
            spec.pop(key)

    return change


def no_rootfs(path: str) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec["root"].update(path=path)


def bundle_with(driver: Driver, config: str) -> Path:
    folder = driver.make_bundle("true")
    (folder / "config.json").write_text(config)
    return folder


def remove_cgroups(container: str) -> None:
    """Take a container's cgroups away, also from under a running one; and what crun leaves in their place."""
    folders = [Path(folder) / name for folder, names, _ in os.walk(CGROUPS) for name in names if name == container]
    for top in folders:
        for folder, _, files in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                for pid in (Path(folder) / "cgroup.procs").read_text().split():
                    with (top.parent / "cgroup.procs").open("r+") as parent:
                        parent.write(pid)
            for file in files:
                with contextlib.suppress(PermissionError):  # a real cgroup's files cannot be removed
                    (Path(folder) / file).unlink()
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


# What fails (the call as a list of arguments), which class, what the message must name.
Call = "Callable[[Driver], CommandError | None]"
FAILURES: dict[str, tuple[Callable[[Driver], CommandError | None], type[CommandError], str]] = {}


def fails(error: type[CommandError], names: str = "") -> Callable[[Any], Any]:
    def register(function: Callable[[Driver], CommandError | None]) -> None:
        FAILURES[function.__name__] = (function, error, names)

    return register


def _unknown(*command: str, after: tuple[str, ...] = ()) -> Callable[[Driver], CommandError | None]:
    def unknown_container(driver: Driver) -> CommandError | None:
        return driver.call(*command, driver.new_id(), *after)

    unknown_container.__name__ += f"_{command[0]}"
    return unknown_container


for _command in ("state", "start", "kill", "delete", "pause", "resume", "ps"):
    fails(ContainerNotFoundError)(_unknown(_command))
fails(ContainerNotFoundError)(_unknown("update", "--pids-limit=5"))
fails(ContainerNotFoundError)(_unknown("exec", after=("true",)))


@fails(ContainerExistsError)
def id_taken_create(driver: Driver) -> CommandError | None:
    return driver.call("create", "--bundle", driver.make_bundle("true"), driver.running())


@fails(ContainerExistsError)
def id_taken_run(driver: Driver) -> CommandError | None:
    return driver.call("run", "--bundle", driver.make_bundle("true"), driver.running())


@fails(InvalidContainerIdError)
def invalid_id_create(driver: Driver) -> CommandError | None:
    return driver.call("create", "--bundle", driver.make_bundle("true"), "a/b")


@fails(BundleError, "/no/such/bundle")
def bundle_missing_create(driver: Driver) -> CommandError | None:
    return driver.call("create", "--bundle", "/no/such/bundle", driver.new_id())


@fails(BundleError, "/no/such/bundle")
def bundle_missing_run(driver: Driver) -> CommandError | None:
    return driver.call("run", "--bundle", "/no/such/bundle", driver.new_id())


@fails(BundleError, "config.json")
def config_missing(driver: Driver) -> CommandError | None:
    folder = driver.make_bundle("true")
    (folder / "config.json").unlink()
    return driver.call("create", "--bundle", folder, driver.new_id())


@fails(BundleError)
def config_cut_off(driver: Driver) -> CommandError | None:
    return driver.call("create", "--bundle", bundle_with(driver, '{"ociVersion": '), driver.new_id())


@fails(BundleError)
def config_no_json(driver: Driver) -> CommandError | None:
    return driver.call("run", "--bundle", bundle_with(driver, "ociVersion = 1"), driver.new_id())


@fails(BundleError)
def config_empty(driver: Driver) -> CommandError | None:
    return driver.call("create", "--bundle", bundle_with(driver, ""), driver.new_id())


@fails(BundleError)
def config_of_wrong_types(driver: Driver) -> CommandError | None:
    return driver.call("create", "--bundle", bundle_with(driver, '{"process": 5}'), driver.new_id())


@fails(BundleError, "root")
def config_without_root(driver: Driver) -> CommandError | None:
    return driver.call("create", "--bundle", driver.make_bundle("true", spec=without("root")), driver.new_id())


@fails(BundleError, "bogus")
def config_with_an_unknown_namespace(driver: Driver) -> CommandError | None:
    def change(spec: dict[str, Any]) -> None:
        spec["linux"]["namespaces"].append({"type": "bogus"})

    return driver.call("create", "--bundle", driver.make_bundle("true", spec=change), driver.new_id())


@fails(BundleError)
def rootfs_missing_absolute(driver: Driver) -> CommandError | None:
    bundle = driver.make_bundle("true", spec=no_rootfs("/no/such/rootfs"))
    return driver.call("create", "--bundle", bundle, driver.new_id())


@fails(BundleError)
def rootfs_missing_relative(driver: Driver) -> CommandError | None:
    bundle = driver.make_bundle("true", spec=no_rootfs("rootfs"))
    return driver.call("run", "--bundle", bundle, driver.new_id())


@fails(CommandError, "no-such-program")
def executable_not_found_run(driver: Driver) -> CommandError | None:
    return driver.call("run", "--bundle", driver.make_bundle("no-such-program"), driver.new_id())


@fails(CommandError, "/bin/no-such-program")
def executable_not_found_create(driver: Driver) -> CommandError | None:
    return driver.call("create", "--bundle", driver.make_bundle("/bin/no-such-program"), driver.new_id())


@fails(CommandError, "no-such-program")
def executable_not_found_exec(driver: Driver) -> CommandError | None:
    return driver.call("exec", driver.running(), "no-such-program")


@fails(ContainerNotRunningError)
def not_running_exec(driver: Driver) -> CommandError | None:
    return driver.call("exec", driver.stopped(), "true")


@fails(ContainerNotRunningError)
def not_running_kill(driver: Driver) -> CommandError | None:
    return driver.call("kill", driver.stopped(), "KILL")


@fails(ContainerNotRunningError)
def not_running_pause(driver: Driver) -> CommandError | None:
    return driver.call("pause", driver.stopped())


@fails(ContainerNotRunningError)
def not_running_start(driver: Driver) -> CommandError | None:
    return driver.call("start", driver.stopped())


@fails(ContainerRunningError)
def already_running_start(driver: Driver) -> CommandError | None:
    return driver.call("start", driver.running())


@fails(ContainerRunningError)
def not_stopped_delete(driver: Driver) -> CommandError | None:
    return driver.call("delete", driver.running())


@fails(ContainerNotRunningError, "paused")
def paused_exec(driver: Driver) -> CommandError | None:
    return driver.call("exec", driver.paused(), "true")


@fails(ContainerRunningError)
def paused_delete(driver: Driver) -> CommandError | None:
    return driver.call("delete", driver.paused())


@fails(CommandError, "/sys/fs/cgroup")
def cgroup_missing_ps(driver: Driver) -> CommandError | None:
    container = driver.running()
    pid = driver.state(container)["pid"]
    remove_cgroups(container)
    try:
        return driver.call("ps", "--format", "json", container)
    finally:
        os.kill(pid, signal.SIGKILL)


@fails(CommandError, "ermission denied")
def permission_denied_state(driver: Driver) -> CommandError | None:
    container = driver.running()
    for folder in (driver.root, *driver.root.parents[:3]):
        folder.chmod(0o755)
    return driver.call("state", container, user=NOBODY)


@fails(CommandError, "ermission denied")
def permission_denied_list(driver: Driver) -> CommandError | None:
    driver.root.chmod(0o700)
    return driver.call("list", user=NOBODY)


@fails(UnsupportedError, "state has no flag --no-such-flag")
def unknown_flag_long(driver: Driver) -> CommandError | None:
    return driver.call("state", "--no-such-flag", "x")


@fails(UnsupportedError, "create has no flag --no-such-flag")
def unknown_flag_with_value(driver: Driver) -> CommandError | None:
    return driver.call("create", "--no-such-flag=7", "x")


@fails(UnsupportedError, "state has no flag -Z")
def unknown_flag_short(driver: Driver) -> CommandError | None:
    return driver.call("state", "-Z", "x")


@fails(UnsupportedError, "has no command no-such-command")
def unknown_command(driver: Driver) -> CommandError | None:
    return driver.call("no-such-command", "x")


@fails(CommandError, "requires")
def too_many_arguments(driver: Driver) -> CommandError | None:
    return driver.call("state", "a", "b")


@pytest.mark.parametrize("name", FAILURES)
def test_a_provoked_failure_gets_its_class_and_the_runtimes_sentence(driver: Driver, name: str) -> None:
    provoke, wanted, names = FAILURES[name]
    error = provoke(driver)
    assert error is not None, "the runtime did not fail"
    assert type(error) is wanted, str(error)
    assert names in error.message
    assert "level=" not in error.message
    assert not re.search(r"\d\d:\d\d:\d\d", error.message)
    assert error.message == error.message.strip() != ""
    assert "\n" not in str(error)


# The same sentences as the runtimes that are not at hand say them.
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
    ("run", "open `rootfs`: No such file or directory", BundleError),
    ("create", "open `/nope/pid` for writing: No such file or directory", CommandError),
    ("run", 'runc run failed: unable to start: exec: "x": executable file not found in $PATH', CommandError),
    ("run", "executable file `x` not found in $PATH: No such file or directory", CommandError),
    ("pause", "openat2 /sys/fs/cgroup/freezer/x/freezer.state: no such file or directory", CommandError),
]  # fmt: skip


@pytest.mark.parametrize(("command", "sentence", "wanted"), SENTENCES)
def test_a_known_sentence_gets_its_class(command: str, sentence: str, wanted: type[CommandError]) -> None:
    error = failure(["runc", command, "x"], 1, log=[LogEntry("error", sentence)])
    assert type(error) is wanted
    assert error.message == sentence


def test_every_row_of_the_table_is_some_runtimes_sentence() -> None:
    cores = [(command, re.sub(r"^(runc \w+|exec) failed: ", "", sentence)) for command, sentence, _ in SENTENCES]
    for row in TABLE:
        pattern = re.compile(row.sentence, re.IGNORECASE)
        assert any(pattern.match(core) and command in (row.commands or {command}) for command, core in cores), row


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
]


@pytest.mark.parametrize(("said", "wanted"), UNSUPPORTED)
@pytest.mark.parametrize("where", ["log", "stderr"])
def test_an_unsupported_flag_or_command_is_named_with_the_version(said: str, wanted: str, where: str) -> None:
    log = [LogEntry("error", said)] if where == "log" else []
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


def test_silence_is_said_as_such() -> None:
    assert failure(["runc", "state", "x"], 7, log=()).message == "the runtime ended with status 7 and said nothing"
    assert failure(["runc", "state", "x"], -9, log=()).message == "the runtime was killed by signal 9 and said nothing"


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
