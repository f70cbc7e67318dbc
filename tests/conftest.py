"""Fixtures of the whole suite: event loops, a real runtime, real bundles, and the census of leaks."""

from __future__ import annotations

import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_timeout
from _pytest.junitxml import xml_key

from runc_async import CommandError, FdExecutor, Runc, SealedExecutor
from runc_async._bundle import default_spec as default_spec_module
from runc_async._linux import fd_reserve

from ._cgroups import has_controller
from ._leaks import SESSION, Census, assert_nothing_left, remove_folders_in_place_of_cgroups
from ._reaper import fork_below_a_subreaper, worker_command
from ._slowness import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator

EVENT_LOOPS = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
RUNTIME = os.environ.get("RUNC_ASYNC_RUNTIME", "runc")
CGROUP_KINDS = {"cgroup": "v1", "cgroup2": "v2"}

HANGS_AFTER = 60
"""Seconds; times `SLOWNESS`."""
MACHINE = (
    "containers/test_checkpoint",
    "containers/test_default_spec",
    "containers/test_kernel",
    "containers/test_systemd",
    "examples/test_examples.py::TestDemo",
    "lifecycle/test_events",
    "linux/test_cgroup_paths",
    "linux/test_cgroups",
    "test_client_commands",
    "test_main",
    "test_usage",
)
"""Where the tests are whose outcome depends on the kernel, its cgroups and its init: ``-m machine``, by `make test-vm`.

Of tests that run on every event loop, those on the first: the machine makes no difference between loops."""
NO_UNIT = {"runtime_path", "rootfs"}
"""What has one of these needs a runtime, containers or root. ``-m unit`` is the rest without `ALSO_NO_UNIT`."""
ALSO_NO_UNIT = (
    "bench/",  # takes seconds
    "bundle/test_bundle.py::test_a_header_of_too_many_bytes",
    "bundle/test_bundle.py::test_a_hundred_thousand",
    "bundle/test_bundle.py::test_an_archive_that_unpacks_to_too_much",
    "bundle/test_bundle.py::test_hostile_archives_are_refused_and_nothing_of_them_is_left[asyncio-an impossible owner]",
    "bundle/test_removal.py::test_another_file_system",
    "docs/test_blocks",
    "docs/test_site",
    "docs/test_types",
    "examples/",
    "lifecycle/test_remnants.py::TestSweepCgroups",
    "linux/test_exit_status.py::test_another_user",
    "linux/test_libc.py::test_what_is_not_mounted",
    "linux/test_tempdir.py::test_another_users",
    "linux/test_tempdir.py::test_one_that_cannot_be_written",
    "test_dist",
    "test_executor.py::TestSealedExecutor::test_cannot_be_altered",
    "test_executor.py::test_a_kernel_that_makes_no_executable",
    "test_executor.py::test_without_proc",
    "test_io.py::test_files_that_cannot_be_opened",
    "test_io.py::test_pipes_can_belong_to_another_user",
    "test_sockets.py::TestPlace::test_no_other_user",
    "test_suite",
)
"""Tests that ask for no such fixture, and need root or a runtime all the same, or take seconds."""


def is_below(item: pytest.Item, places: Iterable[str]) -> bool:
    """Whether a test is in one of these files, classes or functions."""
    return item.nodeid.startswith(tuple(f"tests/{place}" for place in places))


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist, which runs tests for another process."""
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """The process that runs tests is below one that adopts orphans: this one, or each worker of pytest-xdist."""
    if config.option.timeout is None:
        config.option.timeout = HANGS_AFTER * SLOWNESS
    if workers := config.getoption("tx", None):
        config.option.tx = [f"{worker}//python={worker_command()}" for worker in workers]
    elif not config.option.collectonly and not is_worker(config):
        sys.stdout.flush()
        sys.stderr.flush()
        fork_below_a_subreaper()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Writes into ``--junit-xml`` which Python, runtime, cgroups and CRIU the suite ran with."""
    junit = session.config.stash.get(xml_key, None)
    if junit is None or is_worker(session.config):
        return

    def version(command: str) -> str:
        if shutil.which(command) is None:
            return "-"
        return subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]

    mounts = [line.rpartition(" - ")[2].split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for name, value in {
        "python": platform.python_version(),
        "runtime": version(RUNTIME).replace(" version", ""),
        "cgroup": "+".join(v for kind, v in CGROUP_KINDS.items() if kind in mounts),
        "CRIU": version("criu").removeprefix("Version: "),
    }.items():
        junit.add_global_property(name, value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test that runs on an event loop also proves that it leaves no task there. Says which are unit tests."""
    for item in items:
        has_fixture = not NO_UNIT.isdisjoint(getattr(item, "fixturenames", NO_UNIT))
        if not has_fixture and not is_below(item, ALSO_NO_UNIT):
            item.add_marker("unit")
        if is_below(item, MACHINE):
            loop = getattr(item, "callspec", None) and item.callspec.params.get("anyio_backend")
            if loop in (None, "asyncio", EVENT_LOOPS["asyncio"]):
                item.add_marker("machine")
        if isinstance(item, pytest.Function) and "anyio_backend" in item.fixturenames:
            item.fixturenames.append("no_task_left")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip where CRIU itself has given up after its ten seconds: now and then it cannot stop a frozen process on v1."""
    try:
        return (yield)
    except (CommandError, ExceptionGroup) as error:
        if "Timeout reached. Try to interrupt" in "".join(traceback.format_exception(error)):
            pytest.skip("CRIU gave up after ten seconds, in its own words: run it again, or on cgroup v2")
        raise


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Counts the time of the clean-up, too: pytest-timeout stops its clock as soon as a test has failed."""
    settings = pytest_timeout._get_item_settings(item)
    if settings.timeout and not settings.func_only:
        item.config.hook.pytest_timeout_cancel_timer(item=item)
        item.config.hook.pytest_timeout_set_timer(item=item, settings=settings)


@pytest.fixture(params=EVENT_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Each of the three event loops in turn."""
    return EVENT_LOOPS[request.param]


@pytest.fixture(scope="session", autouse=True)
def warm_event_loops() -> None:
    """What a library opens once and for ever (libuv: a pipe for signals) is no leak of the first test."""
    import uvloop

    uvloop.new_event_loop().close()
    fd_reserve.fill()


@pytest.fixture
async def no_task_left(anyio_backend: object) -> Any:
    """Fails when a task outlives the test."""
    import anyio.lowlevel

    def running() -> set[int]:
        # The plugin of anyio starts a task of its own for every step of a test.
        tasks = [*anyio.get_running_tasks(), anyio.get_current_task()]
        return {task.id for task in tasks if "_call_in_runner_task" not in repr(task.coro)}

    before = running()
    yield
    for _ in range(100):  # a task that was cancelled needs some turns of the event loop to end
        if not running() - before:
            break
        await anyio.lowlevel.checkpoint()
    left = running() - before
    assert not left, [task for task in anyio.get_running_tasks() if task.id in left]


@pytest.fixture(scope="session")
def runtime_path() -> Path:
    """The runtime under test: ``$RUNC_ASYNC_RUNTIME`` or runc on PATH."""
    found = shutil.which(RUNTIME)
    if found is None:
        pytest.fail("no runtime found: `apt-get install runc`, or name one in RUNC_ASYNC_RUNTIME")
    return Path(found)


@pytest.fixture(scope="session")
def runtime_name(runtime_path: Path) -> str:
    """``runc`` or ``crun``, as the binary says of itself."""
    return subprocess.run([runtime_path, "--version"], capture_output=True, text=True, check=True).stdout.split()[0]


@pytest.fixture(scope="session")
def rootfs() -> Iterator[Path]:
    """A root file system of a static busybox and nothing else."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.fail("no busybox found: `apt-get install busybox-static`")
    with tempfile.TemporaryDirectory(prefix=f"{SESSION}-rootfs-") as name:
        folder = Path(name)
        os.chmod(folder, 0o755)
        for sub in ("bin", "dev", "proc", "sys", "tmp", "etc", "root"):
            (folder / sub).mkdir()
        shutil.copy(busybox, folder / "bin/busybox")
        applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in applets:
            if applet != "busybox":
                (folder / "bin" / applet).symlink_to("busybox")
        yield folder


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files of the library go during a test; empty again after it."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def state_root(tmp_path: Path) -> Path:
    """The runtime's ``--root`` during a test; empty again after it."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def no_leaks(warm_event_loops: None, scratch: Path, state_root: Path) -> Iterator[None]:
    """Processes, zombies, cgroups, state directories, descriptors, mounts, temporary files: none may be left."""
    before = Census.take(scratch=scratch, state_root=state_root)
    yield
    remove_folders_in_place_of_cgroups()
    assert_nothing_left(before, scratch=scratch, state_root=state_root)


_numbers = itertools.count(1)


@pytest.fixture
def new_id() -> Callable[[], str]:
    """Makes container ids that no other run or test has."""
    return lambda: f"{SESSION}-{next(_numbers)}"


@pytest.fixture
def container_id(new_id: Callable[[], str]) -> str:
    """One such id."""
    return new_id()


def minimal_spec(args: list[str], rootfs: Path, *, terminal: bool = False, **process: Any) -> dict[str, Any]:
    """The smallest config.json that runs a program in namespaces of its own."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "noNewPrivileges": True,
            **process,
        },
        "root": {"path": str(rootfs), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]},
        ],
        "linux": {"namespaces": [{"type": name} for name in ("pid", "mount", "ipc", "uts", "network")]},
    }  # fmt: skip


@pytest.fixture(scope="session")
def sealed(runtime_path: Path) -> Iterator[SealedExecutor]:
    """The runtime, sealed once for the whole run."""
    with SealedExecutor.open(runtime_path) as executor:
        yield executor


@pytest.fixture
def runc(runtime_path: Path, state_root: Path) -> Iterator[Runc]:
    """A client of the runtime under test, by a held descriptor."""
    with FdExecutor.open(runtime_path) as executor:
        yield Runc(executor, root=state_root)


@pytest.fixture
def fake_runtime(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a runtime of a shell script, for what a real one cannot be made to do."""

    def make(script: str) -> Path:
        path = Path(tempfile.mkdtemp(prefix="fake-", dir=tmp_path)) / "runc"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def fake(fake_runtime: Callable[[str], Path]) -> Callable[..., Runc]:
    """A client of a shell script in the runtime's place."""
    return lambda script, **settings: Runc(fake_runtime(script), **settings)


@pytest.fixture
def make_bundle(tmp_path: Path, rootfs: Path) -> Callable[..., Path]:
    """Writes a bundle that runs the given arguments; keywords go to the spec's process, ``spec=`` changes the rest."""

    def make(*args: str, spec: Callable[[dict[str, Any]], None] | None = None, **process: Any) -> Path:
        config = minimal_spec(list(args), rootfs, **process)
        if spec is not None:
            spec(config)
        folder = Path(tempfile.mkdtemp(prefix="bundle-", dir=tmp_path))
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


@pytest.fixture(autouse=True)
def no_default_limit_where_there_can_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """`default_spec` limits processes by itself; a container with a limit is refused where no controller is."""
    if not has_controller("pids"):
        monkeypatch.setattr(default_spec_module, "DEFAULT_PIDS", None)


@pytest.fixture
async def running(runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> AsyncIterator[str]:
    """The id of a running container of three processes, with an annotation and a limit of memory."""

    def limited(spec: dict[str, Any]) -> None:
        spec["annotations"] = {"org.example.key": "value"}
        if has_controller("memory"):
            spec["linux"]["resources"] = {"memory": {"limit": 32 << 20}}

    await runc.run(container_id, make_bundle("sh", "-c", "sleep 100 & sleep 100; true", spec=limited), detach=True)
    while len(await runc.ps(container_id)) < 3:
        pass
    yield container_id
    await runc.delete(container_id, force=True)
