"""The runtime's own failure is an error, whatever its status; a status that is returned is the process's own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import BundleError, CommandError, Runc, SealedExecutor, UnsupportedError
from runc_async._linux import cgroups

if TYPE_CHECKING:
    from collections.abc import Callable

    from runc_async import Call

pytestmark = pytest.mark.anyio

FLAGS = [["--nosuch"], ["--log-level=bogus"], ["--cgroup-manager=nosuch"], ["--criu"]]


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
@pytest.mark.parametrize("command", ["run", "exec"])
async def test_a_global_flag_that_the_runtime_refuses_is_an_error(
    runtime_path: Path,
    state_root: Path,
    make_bundle: Callable[..., Path],
    new_id: Callable[[], str],
    runc: Runc,
    command: str,
    flags: list[str],
    runtime_name: str,
) -> None:
    if runtime_name == "crun" and flags == ["--log-level=bogus"]:
        pytest.skip("crun 1.28 takes it for an error level: run with runc")
    broken = Runc(runtime_path, root=state_root, extra_args=flags)
    async with runc.container(new_id(), make_bundle("sleep", "60")) as container:
        await container.start()
        call = broken.run(new_id(), make_bundle("true")) if command == "run" else broken.exec(container.id, ["true"])
        with pytest.raises(CommandError) as failed:
            await call
        assert failed.value.status != 0
        assert "said nothing" not in failed.value.message
        if flags == ["--nosuch"]:
            assert isinstance(failed.value, UnsupportedError)


@pytest.mark.parametrize("script", ['exec /no/such/runc "$@"', 'exec "$(dirname "$0")/runc.real" "$@"', "exit 0"])
async def test_a_wrapper_that_does_not_start_the_runtime_is_an_error(
    fake_runtime: Callable[[str], Path], make_bundle: Callable[..., Path], new_id: Callable[[], str], script: str
) -> None:
    path = fake_runtime(script)
    with SealedExecutor.open(path) as sealed:
        for executor in (path, sealed):
            runc = Runc(executor)
            for call in (
                lambda runc=runc: runc.run(new_id(), make_bundle("true")),
                lambda runc=runc: runc.exec("x", ["true"]),
                lambda runc=runc: runc.create(new_id(), make_bundle("true")),
            ):
                with pytest.raises(CommandError):
                    await call()


@pytest.mark.parametrize("status", [0, 1, 2, 5, 7, 64, 126, 127, 128, 255])
async def test_the_status_of_a_program_is_its_own_and_costs_one_runtime_process(
    runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], new_id: Callable[[], str], status: int
) -> None:
    calls: list[Call] = []
    runc = Runc(runtime_path, root=state_root, trace=calls.append)
    assert await runc.run(new_id(), make_bundle("sh", "-c", f"exit {status}")) == status
    assert len(calls) == 1
    async with runc.container(new_id(), make_bundle("sleep", "60")) as container:
        await container.start()
        calls.clear()
        assert await runc.exec(container.id, ["sh", "-c", f"exit {status}"]) == status
        assert (await container.run(["sh", "-c", f"exit {status}"])).status == status
        assert len(calls) == 2


async def test_a_program_that_a_signal_ends_is_no_failure_of_the_runtime(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with runc.container(container_id, make_bundle("sleep", "60")) as container:
        await container.start()
        assert (await container.run(["sh", "-c", "kill -9 $$"])).status == 137


@pytest.mark.parametrize("how", ["no program", "missing bundle", "no json", "missing program"])
@pytest.mark.parametrize("command", ["run", "create"])
async def test_the_reason_is_the_runtimes(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, how: str, command: str, tmp_path: Path
) -> None:
    bundle: Any = make_bundle("/nosuch")
    wanted: type[CommandError] = BundleError
    if how == "no program":
        bundle = make_bundle()
    elif how == "missing bundle":
        bundle = tmp_path / "missing"
    elif how == "no json":
        (bundle / "config.json").write_text("{")
    else:
        wanted = CommandError
    with pytest.raises(wanted) as failed:
        await getattr(runc, command)(container_id, bundle)
    assert failed.value.message
    assert "said nothing" not in failed.value.message
    if how == "missing program":
        assert "nosuch" in failed.value.message


async def test_a_runtime_that_fails_without_a_word_says_so(
    fake_runtime: Callable[[str], Path], make_bundle: Callable[..., Path]
) -> None:
    runc = Runc(fake_runtime("exit 3"))
    with pytest.raises(CommandError, match=r"said nothing \(status 3\)"):
        await runc.exec("x", ["true"])


async def test_a_runtime_that_crashes_while_its_program_lives_is_an_error_and_the_program_is_gone(
    fake_runtime: Callable[[str], Path], make_bundle: Callable[..., Path], runtime_path: Path, state_root: Path,
    container_id: str,
) -> None:  # fmt: skip
    """Go ends a program for want of a thread with status 2, which a program may have, too."""
    path = fake_runtime(
        f'case "$*" in *" run "*) "{runtime_path}" $(echo "$@" | sed "s/ run / run --detach /"); exit 2;; esac\n'
        f'exec "{runtime_path}" "$@"'
    )
    runc = Runc(path, root=state_root)
    with pytest.raises(CommandError):
        await runc.run(container_id, make_bundle("sleep", "60"))
    assert await runc.list() == []


async def test_a_runtime_that_a_signal_ends_is_named_with_the_signal(
    fake_runtime: Callable[[str], Path], make_bundle: Callable[..., Path]
) -> None:
    runc = Runc(fake_runtime("trap - INT; kill -INT $$; sleep 60"))
    with pytest.raises(CommandError, match="signal 2") as failed:
        await runc.run("x", make_bundle("true"))
    assert failed.value.status == -2


async def test_a_cgroup_that_is_briefly_busy_does_not_hide_the_status(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    """runc 1.1 logs at level error that it could not remove the cgroup, and ends with the program's status."""
    guests: list[subprocess.Popen[bytes]] = []
    statuses: list[int] = []
    try:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                statuses.append(await runc.run(container_id, make_bundle("sh", "-c", "sleep 0.6; exit 3")))

            group.start_soon(run)
            with anyio.fail_after(20):
                while not (ids := await runc.list()) or ids[0].status != "running":
                    await anyio.sleep(0.01)
            for controllers, path in cgroups.cgroups_of(ids[0].pid).items():
                if path.endswith(container_id) and controllers != ("cpuset",):
                    guests.append(subprocess.Popen(["sleep", "1.2"]))
                    Path(path, "cgroup.procs").write_text(str(guests[-1].pid))
                    break
    finally:
        for guest in guests:
            guest.wait()
    assert statuses == [3]


async def test_what_the_runtime_warns_of_is_passed_on(
    runtime_path: Path,
    state_root: Path,
    make_bundle: Callable[..., Path],
    container_id: str,
    caplog: pytest.LogCaptureFixture,
    runtime_name: str,
) -> None:
    if runtime_name != "runc":
        pytest.skip("crun refuses an unknown capability: run with runc")
    calls: list[Call] = []
    runc = Runc(runtime_path, root=state_root, trace=calls.append)
    unknown = {"bounding": ["CAP_NOSUCH"], "effective": [], "permitted": []}
    assert await runc.run(container_id, make_bundle("true", capabilities=unknown)) == 0
    (record,) = [record for record in caplog.records if record.name == "runc_async.runtime"]
    assert record.levelname == "WARNING"
    assert "CAP_NOSUCH" in record.getMessage()
    assert ["CAP_NOSUCH" in entry.message and entry.level == "warning" for entry in calls[0].log] == [True]
