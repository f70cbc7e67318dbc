"""The runtime's environment: whose variables reach which call, and which never do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import CommandError, Runc
from runc_async._process.environment import check_variables, environment, extra

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

SHOW_ENV = 'env | grep -E "^(A=|B=|NOTIFY_|LISTEN_)" | sort | tr "\\n" " " >&2; exit 1'


async def told(runc: Runc) -> str:
    """What a fake runtime says that fails."""
    with pytest.raises(CommandError) as caught:
        await runc.start("x")
    return caught.value.message.strip()


async def test_each_task_has_its_own_extra_environment(fake: Callable[..., Runc]) -> None:
    runc = fake(SHOW_ENV, env={"A": "client"})
    seen: dict[str, str] = {}

    async def child(name: str) -> None:
        seen[f"{name}'s child"] = await told(runc)

    async def task(name: str) -> None:
        with runc.extra_env(B=name):
            async with anyio.create_task_group() as inner:
                inner.start_soon(child, name)
                seen[name] = await told(runc)

    async with anyio.create_task_group() as group:
        for name in ("one", "two"):
            group.start_soon(task, name)
        seen["outside"] = await told(runc)
    want = {name: f"A=client B={name.split(chr(39))[0]}" for name in ("one", "two", "one's child", "two's child")}
    assert seen == {**want, "outside": "A=client"}


async def test_a_supervisors_sockets_are_passed_on_only_when_given(
    fake: Callable[..., Runc], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        monkeypatch.setenv(name, "accident")
    runc = fake(SHOW_ENV)
    assert "=" not in await told(runc)
    with runc.extra_env(NOTIFY_SOCKET="/given"):
        assert await told(runc) == "NOTIFY_SOCKET=/given"
    assert await told(fake(SHOW_ENV, env={"LISTEN_FDS": "1"})) == "LISTEN_FDS=1"


async def test_what_extra_adds_is_the_last_word_and_is_gone_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "process")
    assert environment(1, {}) is None  # this process's own
    assert environment(1, {"B": "client"}) == {**os.environ, "B": "client"}
    assert (environment(1, {"A": "client"}) or {})["A"] == "client"
    with extra(1, {"A": "outer", "B": "outer"}):
        with extra(1, {"B": "inner"}):
            assert (environment(1, {"A": "client"}) or {}).items() >= {"A": "outer", "B": "inner"}.items()
        assert (environment(1, {}) or {})["B"] == "outer"
        assert environment(2, {}) is None
    assert (environment(1, {"A": "client"}) or {})["A"] == "client"
    assert environment(1, {}) is None


async def test_what_one_client_adds_reaches_no_other(fake: Callable[..., Runc]) -> None:
    one, other = fake(SHOW_ENV), fake(SHOW_ENV)
    with one.extra_env(A="one"), other.extra_env(B="other"):
        assert await told(one) == "A=one"
        assert await told(other) == "B=other"


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"": "x"}, ValueError),
        ({"A=B": "x"}, ValueError),
        ({"A\0": "x"}, ValueError),
        ({"A": "x\0"}, ValueError),
        ({"A": 1}, TypeError),
        ({b"A": "x"}, TypeError),
        (["A=x"], TypeError),
        (5, TypeError),
    ],
)
async def test_what_no_environment_can_hold_is_refused(variables: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="env"):
        check_variables(variables)
    with pytest.raises(error, match="env"), extra(1, variables):
        pass
    with pytest.raises(error, match="env"):
        Runc(env=variables)
