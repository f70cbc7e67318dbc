"""Every failure that a user meets daily, provoked through the client on the real runtime: its class, its sentence.

``RUNC_ASYNC_RECORD=1`` records what the runtime says in ``tests/data/runtimes/``.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import (
    BundleError,
    CommandError,
    ContainerExistsError,
    ContainerNotFoundError,
    ContainerNotRunningError,
    ContainerRunningError,
    DecodeError,
    Executable,
    Executor,
    InvalidContainerIdError,
    Runc,
    RuncError,
    UnsupportedError,
)
from runc_async._cli.messages import failure, parse_log

from ._leaks import CGROUPS
from ._slowness import within
from .conftest import EVENT_LOOPS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

DATA = Path(__file__).parent / "data" / "runtimes"
NOBODY = 65534


def remove_cgroups(container: str) -> None:
    """Take a container's cgroups away, also from under a running one."""
    for top in [Path(folder) / name for folder, names, _ in os.walk(CGROUPS) for name in names if name == container]:
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                for pid in (Path(folder) / "cgroup.procs").read_text().split():
                    with (top.parent / "cgroup.procs").open("r+") as parent:
                        parent.write(pid)
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


class AsOrdinaryUser(Executor):
    """The runtime, run as nobody."""

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime

    def executable(self) -> Executable:
        ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        return Executable(("setpriv", *ids, str(self._runtime)), path=shutil.which("setpriv"))


@dataclass
class Case:
    """What a failure is provoked with."""

    runc: Runc
    runtime: Path
    root: Path
    new_id: Callable[[], str]
    make_bundle: Callable[..., Path]

    @property
    def nobodys(self) -> Runc:
        """A client whose runtime has no privileges."""
        return Runc(AsOrdinaryUser(self.runtime), root=self.root, work_dir="/")

    async def created(self, *args: str) -> str:
        container = self.new_id()
        await self.runc.create(container, self.make_bundle(*(args or ("sleep", "100"))))
        return container

    async def running(self, *args: str) -> str:
        container = await self.created(*args)
        await self.runc.start(container)
        return container

    async def stopped(self) -> str:
        container = await self.created("true")
        pidfd = os.pidfd_open((await self.runc.state(container)).pid)
        try:
            await self.runc.start(container)
            with within(10):
                await anyio.wait_readable(pidfd)
        finally:
            os.close(pidfd)
        return container

    async def paused(self) -> str:
        container = await self.running()
        await self.runc.pause(container)
        return container

    def broken(self, config: str) -> Path:
        """A bundle with this in its ``config.json``."""
        folder = self.make_bundle("true")
        (folder / "config.json").write_text(config)
        return folder


@pytest.fixture
async def case(
    runtime_path: Path, state_root: Path, new_id: Callable[[], str], make_bundle: Callable[..., Path]
) -> AsyncIterator[Case]:
    runc = Runc(runtime_path, root=state_root)
    ids: list[str] = []

    def noted() -> str:
        ids.append(new_id())
        return ids[-1]

    yield Case(runc, runtime_path, state_root, noted, make_bundle)
    state_root.chmod(0o700)
    for folder in list(state_root.iterdir()):
        await runc.delete(folder.name, force=True)
    for container in ids:
        remove_cgroups(container)  # crun leaves one after a failed create


FAILURES: dict[str, tuple[Any, type[CommandError], str]] = {}
"""What is done, which class of error it gives, what the message names."""


def fails(error: type[CommandError], names: str = "") -> Callable[[Callable[[Case], Awaitable[object]]], None]:
    def register(provoke: Callable[[Case], Awaitable[object]]) -> None:
        FAILURES[provoke.__name__] = (provoke, error, names)

    return register


def of_an_unknown_container(name: str, call: Callable[[Runc, str], Awaitable[object]]) -> None:
    async def provoke(case: Case) -> None:
        await call(case.runc, case.new_id())

    FAILURES[f"unknown_container_{name}"] = (provoke, ContainerNotFoundError, "")


of_an_unknown_container("state", lambda runc, id: runc.state(id))
of_an_unknown_container("start", lambda runc, id: runc.start(id))
of_an_unknown_container("kill", lambda runc, id: runc.kill(id))
of_an_unknown_container("delete", lambda runc, id: runc.delete(id))
of_an_unknown_container("pause", lambda runc, id: runc.pause(id))
of_an_unknown_container("resume", lambda runc, id: runc.resume(id))
of_an_unknown_container("ps", lambda runc, id: runc.ps(id))
of_an_unknown_container("top", lambda runc, id: runc.top(id))
of_an_unknown_container("update", lambda runc, id: runc.update(id, pids_limit=5))
of_an_unknown_container("exec", lambda runc, id: runc.exec(id, ["true"]))
of_an_unknown_container("checkpoint", lambda runc, id: runc.checkpoint(id, image_path="/no/such/image"))


@fails(ContainerExistsError)
async def id_taken_create(case: Case) -> None:
    await case.runc.create(await case.running(), case.make_bundle("true"))


@fails(ContainerExistsError)
async def id_taken_run(case: Case) -> None:
    await case.runc.run(await case.running(), case.make_bundle("true"))


@fails(InvalidContainerIdError)
async def invalid_id_create(case: Case) -> None:
    await case.runc.create("a/b", case.make_bundle("true"))


@fails(InvalidContainerIdError, "x" * 300)
async def invalid_id_too_long(case: Case) -> None:
    await case.runc.create("x" * 300, case.make_bundle("true"))


@fails(BundleError, "/no/such/bundle")
async def bundle_missing_create(case: Case) -> None:
    await case.runc.create(case.new_id(), "/no/such/bundle")


@fails(BundleError, "/no/such/bundle")
async def bundle_missing_run(case: Case) -> None:
    await case.runc.run(case.new_id(), "/no/such/bundle")


@fails(BundleError, "config.json")
async def config_missing(case: Case) -> None:
    folder = case.make_bundle("true")
    (folder / "config.json").unlink()
    await case.runc.create(case.new_id(), folder)


@fails(BundleError)
async def config_cut_off(case: Case) -> None:
    await case.runc.create(case.new_id(), case.broken('{"ociVersion": '))


@fails(BundleError)
async def config_no_json(case: Case) -> None:
    await case.runc.run(case.new_id(), case.broken("ociVersion = 1"))


@fails(BundleError)
async def config_empty(case: Case) -> None:
    await case.runc.create(case.new_id(), case.broken(""))


@fails(BundleError)
async def config_of_wrong_types(case: Case) -> None:
    await case.runc.create(case.new_id(), case.broken('{"process": 5}'))


@fails(BundleError, "root")
async def config_without_root(case: Case) -> None:
    await case.runc.create(case.new_id(), case.make_bundle("true", spec=lambda spec: spec.pop("root")))


@fails(BundleError, "bogus")
async def config_with_an_unknown_namespace(case: Case) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["linux"]["namespaces"].append({"type": "bogus"})

    await case.runc.create(case.new_id(), case.make_bundle("true", spec=change))


@fails(BundleError, "args")
async def config_without_a_program(case: Case) -> None:
    await case.runc.run(case.new_id(), case.make_bundle("true", spec=lambda spec: spec["process"].pop("args")))


def rootfs(path: str) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec["root"].update(path=path)


@fails(BundleError)
async def rootfs_missing_create(case: Case) -> None:
    await case.runc.create(case.new_id(), case.make_bundle("true", spec=rootfs("/no/such/rootfs")))


@fails(BundleError)
async def rootfs_missing_run(case: Case) -> None:
    await case.runc.run(case.new_id(), case.make_bundle("true", spec=rootfs("rootfs")))


@fails(CommandError, "no-such-program")
async def executable_not_found_run(case: Case) -> None:
    await case.runc.run(case.new_id(), case.make_bundle("no-such-program"))


@fails(CommandError, "/bin/no-such-program")
async def executable_not_found_create(case: Case) -> None:
    await case.runc.create(case.new_id(), case.make_bundle("/bin/no-such-program"))


@fails(CommandError, "no-such-program")
async def executable_not_found_exec(case: Case) -> None:
    await case.runc.exec(await case.running(), ["no-such-program"])


@fails(ContainerNotRunningError)
async def not_running_exec(case: Case) -> None:
    await case.runc.exec(await case.stopped(), ["true"])


@fails(ContainerNotRunningError)
async def not_running_kill(case: Case) -> None:
    await case.runc.kill(await case.stopped(), signal.SIGKILL)


@fails(ContainerNotRunningError)
async def not_running_pause(case: Case) -> None:
    await case.runc.pause(await case.stopped())


@fails(ContainerNotRunningError)
async def not_running_start(case: Case) -> None:
    await case.runc.start(await case.stopped())


@fails(ContainerRunningError)
async def already_running_start(case: Case) -> None:
    await case.runc.start(await case.running())


@fails(ContainerRunningError)
async def not_stopped_delete(case: Case) -> None:
    await case.runc.delete(await case.running())


@fails(ContainerNotRunningError, "paused")
async def paused_exec(case: Case) -> None:
    await case.runc.exec(await case.paused(), ["true"])


@fails(ContainerRunningError)
async def paused_delete(case: Case) -> None:
    await case.runc.delete(await case.paused())


@fails(CommandError, "/sys/fs/cgroup")
async def cgroup_missing_ps(case: Case) -> None:
    container = await case.running()
    pid = (await case.runc.state(container)).pid
    remove_cgroups(container)
    try:
        await case.runc.ps(container)
    finally:
        os.kill(pid, signal.SIGKILL)


@fails(CommandError, "ermission denied")
async def permission_denied_state(case: Case) -> None:
    container = await case.running()
    for folder in (case.root, *case.root.parents[:3]):
        folder.chmod(0o755)
    await case.nobodys.state(container)


@fails(CommandError, "ermission denied")
async def permission_denied_list(case: Case) -> None:
    await case.nobodys.list()


@fails(CommandError, "ermission denied")
async def permission_denied_create(case: Case) -> None:
    bundle = case.make_bundle("true")  # root's alone
    for folder in bundle.parents[:3]:
        folder.chmod(0o755)
    await case.nobodys.create(case.new_id(), bundle)


@fails(UnsupportedError, "state has no flag --no-such-flag")
async def unknown_flag(case: Case) -> None:
    await case.runc.state("x", extra_args=["--no-such-flag"])


@fails(UnsupportedError, "create has no flag --no-such-flag")
async def unknown_flag_of_what_starts_a_container(case: Case) -> None:
    await case.runc.create(case.new_id(), case.make_bundle("true"), extra_args=["--no-such-flag=7"])


@fails(UnsupportedError, "state has no flag -Z")
async def unknown_short_flag(case: Case) -> None:
    await case.runc.state("x", extra_args=["-Z"])


@fails(UnsupportedError, "has no flag --no-such-flag")
async def unknown_global_flag(case: Case) -> None:
    await Runc(case.runtime, root=case.root, extra_args=["--no-such-flag"]).state("x")


@fails(UnsupportedError, "has no command no-such-command")
async def unknown_command(case: Case) -> None:
    await Runc(case.runtime, root=case.root, extra_args=["no-such-command"]).list()


@fails(CommandError, "requires")
async def too_many_arguments(case: Case) -> None:
    await case.runc.state("a", extra_args=["b"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("anyio_backend", "name"),
    [(list(EVENT_LOOPS)[n % len(EVENT_LOOPS)], name) for n, name in enumerate(FAILURES)],
    indirect=["anyio_backend"],
)
async def test_a_daily_failure_gets_its_class_and_the_runtimes_sentence(case: Case, name: str) -> None:
    provoke, wanted, names = FAILURES[name]
    with pytest.raises(RuncError) as caught:
        await provoke(case)
    error = caught.value
    if name == "unknown_container_checkpoint" and "has no command checkpoint" in str(error):
        wanted = UnsupportedError  # crun without CRIU
    assert type(error) is wanted, str(error)
    assert isinstance(error, CommandError)
    assert names in error.message
    assert error.message == error.message.strip() != ""
    assert "level=" not in error.message
    assert not re.search(r"\d\d:\d\d:\d\d", error.message)
    assert "\n" not in str(error)
    assert " ".join(error.message.split()) in str(error)
    assert error.status != 0
    assert error.argv[0] == case.runtime.name or wanted is CommandError  # a launcher
    if isinstance(error, UnsupportedError):
        assert (await case.runc.version()).version in str(error)
    elif error.log or case.runtime.name != "crun":  # crun writes some to its standard error alone
        assert error.message in [entry.message for entry in error.log]
    if os.environ.get("RUNC_ASYNC_RECORD"):
        await record(case, name, error)


@pytest.mark.anyio
async def test_a_containers_own_status_is_a_result_though_its_config_looks_doubtful(case: Case) -> None:
    bundle = case.make_bundle("sh", "-c", "exit 1", user={})  # the specification requires ids
    assert await case.runc.run(case.new_id(), bundle) == 1


# -- what the runtimes say, those too that are not here ------------------------------------------------------


async def record(case: Case, name: str, error: CommandError) -> None:
    found = await case.runc.version()
    path = DATA / f"{found.runtime}-{'.'.join(map(str, found.release))}" / "errors.json"
    said = json.loads(path.read_text()) if path.exists() else {}
    message = re.sub(r"t\d+-\d+(?=\W|$)", "ID", error.message)
    message = re.sub(r"/tmp/[^\s`'\":]*/(state|bundle)(-\w+)?(?=[/`':])", r"/\1", message)
    command = next(word for word in error.argv[1:] if not word.startswith(("-", "/")))
    said[name] = {"command": command, "error": type(error).__name__, "message": message, "status": error.status}
    path.write_text(json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


@pytest.mark.parametrize("path", sorted(DATA.glob("*/errors.json")), ids=lambda path: path.parent.name)
def test_what_each_runtime_says_of_each_failure_has_the_same_class(path: Path) -> None:
    said = json.loads(path.read_text())
    assert set(said) == set(FAILURES)
    assert sum(row["error"] == "UnsupportedError" for row in said.values()) <= 6
    for name, row in said.items():
        assert row["error"] in (FAILURES[name][1].__name__, "UnsupportedError"), name
        if row["error"] != "UnsupportedError":
            log = parse_log(json.dumps({"level": "error", "msg": row["message"]}).encode())
            error = failure(["runc", row["command"], "x"], row["status"], log=log)
            assert (type(error), error.message) == (FAILURES[name][1], row["message"]), name


# -- the exceptions themselves -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CommandError, *CommandError.__subclasses__()])
def test_an_error_of_the_runtime_reads_in_one_line_and_can_be_copied(kind: type[CommandError]) -> None:
    log = parse_log(b'{"level":"error","msg":"first\\n second","time":"2026-11-24T12:00:00Z"}')
    error = kind(["runc", "state", "x"], 1, "first\n second", log)
    assert str(error) == "first second (status 1): runc state x"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.argv, again.status, again.message, again.log) == (("runc", "state", "x"), 1, "first\n second", log)
    assert str(kind(["runc"], -9, "gone")) == "gone (killed by signal 9): runc"


def test_an_error_of_decoding_keeps_the_beginning_of_the_output_and_says_less() -> None:
    error = DecodeError(["runc", "state", "x"], b"\n" * 9000, "no JSON")
    assert (len(error.output), "\n" in str(error)) == (4096, False)
    assert str(error).startswith("no JSON: b'")
    assert str(error).endswith("': runc state x")
    assert pickle.loads(pickle.dumps(error)).output == error.output


def test_what_a_terminal_would_obey_is_written_as_escapes() -> None:
    said = b'{"level":"error","msg":"exec \\u001b[2J\\u202ex\\u0007: no such file"}\n'
    error = failure(["runc", "exec", "x", "a\x1b]0;b"], 1, log=parse_log(said + b"\x1b[31mplain\n"))
    assert error.message == r"exec \x1b[2J\u202ex\x07: no such file"
    assert [entry.message for entry in error.log] == [error.message, r"\x1b[31mplain"]
    assert str(error) == rf"{error.message} (status 1): runc exec x a\x1b]0;b"
    assert error.argv[-1] == "a\x1b]0;b"
