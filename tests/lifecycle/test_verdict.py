"""The runtime's own failure is an error, whatever its status; a status that is returned is the process's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runc_async import BundleError, CommandError, Executable, Executor, Runc, SealedExecutor, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


class Launcher(Executor):
    """The runtime behind another program."""

    def __init__(self, *argv: str, path: str) -> None:
        self._executable = Executable(argv, path=path)

    def executable(self) -> Executable:
        return self._executable


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
