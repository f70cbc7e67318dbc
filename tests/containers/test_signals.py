"""Signals in every spelling arrive in a real container as what they mean."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from runc_async import PipeIO, Runc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

SPELLINGS = [
    ("SIGRTMIN+3", signal.SIGRTMIN + 3), ("rtmax-2", signal.SIGRTMAX - 2), ("RTMIN", signal.SIGRTMIN), (64, 64),
    ("IOT", signal.SIGABRT), ("POLL", signal.SIGIO), ("SIGPWR", signal.SIGPWR), ("STKFLT", signal.SIGSTKFLT),
    ("usr1", signal.SIGUSR1), (signal.SIGUSR2, signal.SIGUSR2), (15, signal.SIGTERM),
]  # fmt: skip


async def test_a_signal_in_any_spelling_arrives(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    numbers = " ".join(str(int(number)) for _, number in SPELLINGS)
    script = f'for n in {numbers}; do trap "echo $n" $n; done; echo ready; while :; do sleep 0.01; done'
    async with runc.container(container_id, make_bundle("sh", "-c", script), io=PipeIO()) as container:
        await container.start()
        said = b""
        while b"ready\n" not in said:
            said += await container.io.stdout.receive()
        for spelling, number in SPELLINGS:
            await runc.kill(container.id, spelling)
            said = b""
            while b"\n" not in said:
                said += await container.io.stdout.receive()
            assert said == b"%d\n" % number, spelling


@pytest.mark.parametrize("misspelt", ["SIGTREM", "RTMIN+99", "9", "", 65, -1, 33])
async def test_a_misspelt_signal_is_refused_at_once(runc: Runc, misspelt: Any) -> None:
    with pytest.raises(ValueError, match="no such signal"):  # not ContainerNotFoundError: nothing was started
        await runc.kill("no-such-container", misspelt)
