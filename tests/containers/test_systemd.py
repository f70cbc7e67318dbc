"""systemd makes the cgroups: the system's own for root, a user's for an ordinary user. `make test-vm` has both."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import FdExecutor, Runc, default_spec, temporary_bundle
from runc_async._linux.cgroup_paths import container_cgroups

from .._cgroups import VERSION_2
from .._slowness import SLOWNESS, within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEMORY = 48 << 20
PROJECT = Path(__file__).parents[2]
USER = "tester"

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not os.path.isdir("/run/systemd/system") or not VERSION_2,
        reason="needs systemd as PID 1 and cgroup v2: `make test-vm` has both",
    ),
]


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: what is proved here is what the kernel and systemd do."""
    return "asyncio"


@pytest.fixture
def managed(runtime_path: Path, state_root: Path) -> Iterator[Runc]:
    """A client that lets systemd make the cgroups."""
    with FdExecutor.open(runtime_path) as executor:
        yield Runc(executor, root=state_root, systemd_cgroup=True)


def show(unit: str, *properties: str) -> list[str]:
    """What systemd says of a unit."""
    command = ["systemctl", "show", unit, "--value", *(f"--property={name}" for name in properties)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def limited(args: list[str], path: str | None = None, **keywords: Any) -> Any:
    spec = default_spec(args, memory=MEMORY, swap=MEMORY, cpus=0.5, pids=20, rootless=False, **keywords)
    if path is not None:
        spec["linux"]["cgroupsPath"] = path
    return spec


@pytest.mark.parametrize(
    "path", [None, "system.slice:own:{id}", "{session}.slice:own:{id}", "{session}-in.slice:own:{id}"]
)
async def test_a_container_has_the_scope_and_the_slice_that_were_asked_for(
    managed: Runc, runtime_name: str, rootfs: Path, container_id: str, path: str | None
) -> None:
    session = f"slice{os.getpid()}"
    path = path and path.format(id=container_id, session=session)
    try:
        async with (
            temporary_bundle(limited(["sleep", "100"], path), rootfs=rootfs) as bundle,
            managed.container(container_id, bundle) as container,
        ):
            await container.start()
            own = Path(f"/proc/{container.pid}/cgroup").read_text().strip().removeprefix("0::")
            assert container_cgroups(container_id, path, runtime_name, systemd_cgroup=True) == [
                f"/sys/fs/cgroup{own.removesuffix('/container')}"
            ]
            scope = next(part for part in own.split("/") if part.endswith(".scope"))
            assert scope == f"{'own' if path else runtime_name}-{container_id}.scope"
            wanted = path.partition(":")[0] if path else "system.slice"
            shown = show(scope, "Slice", "ActiveState", "MemoryMax", "TasksMax")
            assert sorted(shown) == sorted([wanted, "active", str(MEMORY), "20"])
            cgroup = Path(f"/sys/fs/cgroup{own}".removesuffix("/container"))
            values = {name: (cgroup / name).read_text().strip() for name in ("memory.max", "pids.max", "cpu.max")}
            assert values == {"memory.max": str(MEMORY), "pids.max": "20", "cpu.max": "50000 100000"}
            assert (cgroup / "memory.swap.max").read_text().strip() == "0"
    finally:
        for name in (f"{session}-in.slice", f"{session}.slice"):
            subprocess.run(["systemctl", "stop", name], check=False, capture_output=True)


async def test_where_systemd_removes_the_scope_first_no_end_for_want_of_memory_is_denied(
    managed: Runc, rootfs: Path, new_id: Callable[[], str]
) -> None:
    for _ in range(5):
        spec = limited(["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"])
        async with temporary_bundle(spec, rootfs=rootfs) as bundle, managed.container(new_id(), bundle) as container:
            await container.start()
            end = await container.wait()
            assert end.status == 137
            assert end.oom_killed in (True, None)  # systemd may have removed the cgroup before it was read


async def test_a_call_that_is_cancelled_leaves_no_scope(managed: Runc, rootfs: Path, new_id: Callable[[], str]) -> None:
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
        id = new_id()
        async with temporary_bundle(limited(["sleep", "100"]), rootfs=rootfs) as bundle:
            with anyio.move_on_after(delay * SLOWNESS):
                await managed.run(id, bundle)
        with within(5):
            while id in subprocess.run(["systemctl", "list-units", "--all"], capture_output=True, text=True).stdout:
                await anyio.sleep(0.1)
        assert await managed.list() == []


DELEGATED = """
import json, os, sys
from pathlib import Path
import anyio
from runc_async import *

async def main(runtime, rootfs, id, home, systemd):
    runc = Runc(runtime, root=Path(home, "state"), systemd_cgroup=systemd == "systemd")
    found = {"own": Path("/proc/self/cgroup").read_text().strip()}
    try:
        spec = default_spec(["sleep", "100"], memory="48M", cpus=0.5, pids=20)
        async with temporary_bundle(spec, rootfs=rootfs) as bundle, runc.container(id, bundle) as container:
            await container.start()
            inner = Path(f"/proc/{container.pid}/cgroup").read_text().strip().removeprefix("0::")
            path = Path("/sys/fs/cgroup" + inner)
            if path.name == "container":
                path = path.parent
            found["cgroup"] = str(path)
            for name in ("memory.max", "pids.max", "cpu.max"):
                found[name] = (path / name).read_text().strip()
        found["left"] = path.exists()
        spec = default_spec(["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"], memory="48M", swap="48M")
        async with temporary_bundle(spec, rootfs=rootfs) as bundle, runc.container(id + "-oom", bundle) as container:
            await container.start()
            end = await container.wait()
            found["end"] = [end.status, end.oom_killed]
    except CommandError as error:
        found["error"] = str(error)
    print(json.dumps(found))

anyio.run(main, *sys.argv[1:])
"""


@pytest.mark.parametrize("manager", ["systemd", "cgroupfs"])
@pytest.mark.parametrize("unit", ["scope", "service"])
def test_an_ordinary_users_containers_have_limits_where_cgroups_are_delegated(
    runtime_path: Path, rootfs: Path, container_id: str, unit: str, manager: str
) -> None:
    done = as_user(unit, sys.executable, "-c", DELEGATED, runtime_path, rootfs, container_id, "{home}", manager)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "error" not in found, found
    assert {name: found[name] for name in ("memory.max", "pids.max", "cpu.max", "left", "end")} == {
        "memory.max": str(MEMORY),
        "pids.max": "20",
        "cpu.max": "50000 100000",
        "left": False,
        "end": [137, found["end"][1]],
    }
    assert found["end"][1] in ((True, None) if manager == "systemd" else (True,))


@pytest.mark.parametrize("unit", ["scope", "service"])
def test_the_doctor_finds_nothing_missing_where_cgroups_are_delegated(runtime_path: Path, unit: str) -> None:
    done = as_user(unit, sys.executable, "-m", "runc_async", "doctor", "--json", "--runtime", runtime_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_demo_as_a_user_of_systemd() -> None:
    done = as_user("scope", sys.executable, "examples/demo.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 containers, rootless, as user 1000" in done.stdout


def as_user(unit: str, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a delegated unit of the systemd of `USER`; ``{home}`` in it is a new directory of that user."""
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        pytest.skip(f"there is no user {USER} with a systemd of its own: `make test-vm` has one")
    runtime_dir = f"/run/user/{user.pw_uid}"
    environment = {
        "XDG_RUNTIME_DIR": runtime_dir,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime_dir}/bus",
        "HOME": user.pw_dir,
        "PYTHONPATH": str(PROJECT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.environ["PATH"],
        "TMPDIR": runtime_dir,
    }
    home = subprocess.run(
        ["runuser", "-u", USER, "--", "mktemp", "-d", f"{runtime_dir}/home-XXXXXX"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    kind = (
        ["--scope", "--quiet"] if unit == "scope" else ["--wait", "--pipe", "--quiet", f"--working-directory={PROJECT}"]
    )
    passed = [f"--setenv={name}={value}" for name, value in environment.items()]
    words = [str(word).format(home=home) if word == "{home}" else str(word) for word in command]
    try:
        return subprocess.run(
            ["runuser", "-u", USER, "--", "env", "-i", *(f"{n}={v}" for n, v in environment.items()),
             "systemd-run", "--user", *kind, *passed, "--property=Delegate=yes", *words],
            capture_output=True, text=True, check=False, cwd=PROJECT, timeout=60 * SLOWNESS,
        )  # fmt: skip
    finally:
        subprocess.run(["rm", "-rf", home], check=False)
