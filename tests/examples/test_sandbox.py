"""The sandbox over HTTP: the real service, real containers."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from runc_async import Runc, busybox_rootfs

from .._cgroups import needs_controllers
from .._slowness import SLOWNESS
from .conftest import SANDBOX, Client, Sandbox, run_sandbox, text

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

LOAD = int(os.environ.get("RUNC_ASYNC_LOAD", "40"))
"""How many runs the load test asks for."""


@pytest.fixture
def anyio_backend() -> str:
    """aiohttp is asyncio's."""
    return "asyncio"


class TestRuns:
    async def test_output_both_streams_and_the_status_come_back(self, client: Client) -> None:
        lines = await client.run("echo hello; echo oops >&2; exit 3")
        assert text(lines) == "hello\n"
        assert text(lines, "stderr") == "oops\n"
        assert lines[0] == {"run": lines[-1]["id"]}
        assert (lines[-1]["state"], lines[-1]["status"], lines[-1]["reason"]) == ("ended", 3, None)

    async def test_output_comes_while_the_program_runs_and_leaving_kills_it(self, client: Client) -> None:
        async with client.request("POST", "/runs", json={"program": "echo first; sleep 60"}) as answer:
            id = json.loads(await answer.content.readline())["run"]
            assert json.loads(await answer.content.readline()) == {"stream": "stdout", "text": "first\n"}
            assert answer.headers["Location"] == f"/runs/{id}"
            assert (await client.get(f"/runs/{id}"))["state"] != "ended"
        run = await client.until(id, lambda run: run["state"] == "ended")
        assert run["reason"] == "its client went away"

    async def test_a_detached_one_is_listed_followed_and_killed(self, client: Client) -> None:
        id = await client.start("echo begun; sleep 60")
        async with client.request("GET", f"/runs/{id}/logs?follow=1") as answer:
            assert json.loads(await answer.content.readline())["text"] == "begun\n"
            listed = await client.get("/runs")
            assert listed["active"] == 1
            assert listed["runs"][0]["id"] == id
            ended = await client.kill(id)
            assert await answer.content.read() == b""  # the end of the run is the end of its logs
        assert (ended["state"], ended["status"], ended["reason"]) == ("ended", 137, "killed")
        async with client.request("GET", f"/runs/{id}/logs") as answer:
            assert await answer.json(content_type="application/x-ndjson") == {"stream": "stdout", "text": "begun\n"}
        assert (await client.get(f"/runs/{id}"))["program"] == "echo begun; sleep 60"
        assert (await client.get("/runs"))["active"] == 0

    async def test_bytes_that_are_no_text_and_characters_cut_in_two_arrive_as_text(self, client: Client) -> None:
        lines = await client.run(r"printf '\303'; sleep 0.2; printf '\244 \377 \342\202'")
        assert text(lines) == "\u00e4 \ufffd \ufffd"  # the last one is never finished

    async def test_live_statistics(self, client: Client, runtime_name: str) -> None:
        id = await client.start("while :; do :; done", cpus=0.5)
        try:
            async with client.request("GET", f"/runs/{id}/stats") as answer:
                if runtime_name == "crun":
                    assert answer.status == 501
                    assert "crun has not" in (await answer.json())["error"]
                    return
                samples = [json.loads(await answer.content.readline()) for _ in range(3)]
        finally:
            await client.kill(id)
        assert samples[0]["time"] < samples[1]["time"] < samples[2]["time"]
        assert all(0.02 < sample["cpu"] < 1 for sample in samples)
        assert all(sample["pids"] >= 1 for sample in samples)
        assert all(0 < sample["memory"] < 64 << 20 for sample in samples)

    async def test_live_the_list_whenever_it_changes(self, client: Client, runtime_name: str) -> None:
        async with client.socket("/live") as live:
            assert json.loads((await live.receive()).data)["active"] == 0
            id = await client.start("sleep 60")
            seen: list[Any] = []
            samples: list[Any] = []
            while len(samples) < 2 and (runtime_name != "crun" or not seen or seen[-1]["state"] != "running"):
                [run, *_] = json.loads((await live.receive(timeout=20 * SLOWNESS)).data)["runs"]
                if run["id"] == id:
                    seen.append(run)
                    samples += run["samples"]
            assert seen[-1]["state"] == "running"
            assert len({sample[0] for sample in samples}) == len(samples)  # each comes once
            await client.kill(id)
            while seen[-1]["state"] != "ended":
                [run, *_] = json.loads((await live.receive(timeout=20 * SLOWNESS)).data)["runs"]
                seen.append(run)
        assert seen[-1]["reason"] == "killed"

    async def test_what_is_not_there(self, client: Client) -> None:
        for method, path in (("GET", "/runs/no"), ("GET", "/runs/no/logs"), ("POST", "/runs/no/kill"), ("GET", "/no")):
            async with client.request(method, path) as answer:
                assert answer.status == 404
                assert "error" in await answer.json()
        async with client.request("DELETE", "/runs") as answer:
            assert answer.status == 405
            assert answer.headers["Allow"] == "GET,HEAD,POST"


class TestWhoMayAsk:
    @pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer ", "Bearer \u00e9", "{token}", "Bearer {token}x"])
    @pytest.mark.parametrize("path", ["/runs", "/runs/x/logs", "/live", "/nowhere"])
    async def test_nobody_without_the_token(self, client: Client, path: str, given: str | None) -> None:
        headers = {"Authorization": given.format(token=client.sandbox.token[:-1])} if given else {}
        async with client.session.get(client.sandbox.url + path, headers=headers) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert await answer.json() == {"error": "a token is needed"}

    async def test_no_program_runs_without_the_token(self, client: Client) -> None:
        before = await client.get("/runs")
        async with client.session.post(client.sandbox.url + "/runs", json={"program": "true"}) as answer:
            assert answer.status == 401
        assert await client.get("/runs") == before

    @pytest.mark.parametrize("path", ["/live", "/runs/x/terminal"])
    async def test_no_websocket_without_the_token(self, client: Client, path: str) -> None:
        for protocols in ((), ("sandbox",), ("sandbox", "bearer.wrong"), ("sandbox", client.sandbox.token)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.session.ws_connect(client.sandbox.url + path, protocols=protocols)
            assert refused.value.status == 401

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://{host}"])
    async def test_no_page_of_others(self, client: Client, origin: str) -> None:
        given = origin.format(host=client.sandbox.url.partition("://")[2])
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.socket("/live", origin=given)
        assert refused.value.status == 403
        async with client.request("POST", "/runs", json={"program": "true"}, headers={"Origin": given}) as answer:
            assert answer.status == 403

    async def test_our_own_page(self, client: Client) -> None:
        async with client.socket("/live", origin=client.sandbox.url) as live:
            assert live.protocol == "sandbox"
            assert "runs" in json.loads((await live.receive()).data)

    async def test_no_name_but_its_own(self, client: Client) -> None:
        """A name of somebody else's that leads to this address (DNS rebinding) does not get an answer."""
        async with client.request("GET", "/", headers={"Host": "evil.example"}) as answer:
            assert answer.status == 421

    async def test_it_listens_on_loopback_alone(self, sandbox: Sandbox) -> None:
        port = int(sandbox.url.rpartition(":")[2])
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        [address] = {
            line[1].split(":")[0] for line in lines if line[3] == "0A" and int(line[1].split(":")[1], 16) == port
        }
        assert address == "0100007F"

    async def test_the_page_needs_no_token_and_says_what_it_may_load(self, client: Client) -> None:
        for path in ("/", "/page.js", "/page.css"):
            async with client.session.get(client.sandbox.url + path) as answer:
                assert answer.status == 200
                assert client.sandbox.token not in await answer.text()
                assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"


class TestLimits:
    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"program": "true", "limits": {"memory": 1000}}, "limits.memory: at most 256, not 1000"),
            ({"program": "true", "limits": {"cpus": 64}}, "limits.cpus: at most 1, not 64"),
            ({"program": "true", "limits": {"pids": 1000}}, "limits.pids: at most 128, not 1000"),
            ({"program": "true", "limits": {"timeout": 31}}, "limits.timeout: at most 30, not 31"),
            ({"program": "true", "limits": {"output": 65}}, "limits.output: at most 64, not 65"),
            ({"program": "true", "limits": {"memory": -1}}, "Expected `float` >= 8.0 - at `$.memory`"),
            ({"program": "true", "limits": {"timeout": 0}}, "Expected `float` > 0.0 - at `$.timeout`"),
            ({"program": "true", "limits": {"pids": 9.5}}, "Expected `int`"),
            ({"program": "true", "limits": {"memory": "much"}}, "Expected `float`, got `str`"),
            ({"program": "true", "limits": {"disk": 5}}, "unknown field `disk`"),
            ({"program": "true", "mounts": ["/:/host"]}, "unknown field `mounts`"),
            ({"program": 5}, "Expected `str`, got `int`"),
            ({"program": "a\0b"}, "NUL"),
            ({}, "missing required field `program`"),
            ([], "Expected `object`, got `array`"),
        ],
    )
    async def test_what_is_refused(self, client: Client, body: Any, words: str) -> None:
        before = await client.get("/runs")
        async with client.request("POST", "/runs", json=body) as answer:
            assert answer.status == 400
            assert words in (await answer.json())["error"]
        assert await client.get("/runs") == before

    async def test_what_is_no_json(self, client: Client) -> None:
        async with client.request("POST", "/runs", data=b"\xff{") as answer:
            assert answer.status == 400

    async def test_a_body_that_is_too_large(self, client: Client) -> None:
        async with client.request("POST", "/runs", json={"program": "#" * (64 << 10)}) as answer:
            assert answer.status == 413
            assert "error" in await answer.json()
        [*_, ended] = await client.run("#" * (60 << 10))
        assert ended["status"] == 0

    async def test_time(self, client: Client) -> None:
        lines = await client.run("trap '' TERM INT HUP; echo begun; while :; do :; done", timeout=0.5)
        assert text(lines) == "begun\n"
        assert (lines[-1]["status"], lines[-1]["reason"]) == (137, "timed out after 0.5 s")

    async def test_output(self, client: Client) -> None:
        lines = await client.run("yes 0123456789", output=8)
        assert text(lines) == ("0123456789\n" * 800)[: 8 << 10]
        assert lines[-1]["output"] == 8 << 10
        assert lines[-1]["reason"] == "more than 8 KiB of output"

    async def test_processes(self, client: Client) -> None:
        lines = await client.run(
            "for i in $(seq 40); do sleep 5 & done; ls /proc | grep -c '^[0-9]'", pids=16, timeout=20
        )
        assert "can't fork" in text(lines, "stderr")
        assert int(text(lines) or 0) <= 16

    async def test_memory(self, client: Client, runtime_name: str) -> None:
        lines = await client.run("tail /dev/zero; echo $?", memory=16, timeout=25)
        assert text(lines) in ("", "137\n")  # the kernel kills the eater or the shell
        assert lines[-1]["status"] in (0, 137)
        assert lines[-1]["reason"] is None
        if runtime_name == "runc" and lines[-1]["status"] == 137:
            assert lines[-1]["out_of_memory"]

    async def test_how_many_at_once(self, client: Client) -> None:
        ids = [await client.start("sleep 60") for _ in range(4)]
        async with client.request("POST", "/runs", json={"program": "true"}) as answer:
            assert answer.status == 429
            assert answer.headers["Retry-After"] == "1"
            assert (await answer.json())["error"] == "4 runs at once are the most"
        for id in ids:
            await client.kill(id)
        assert text(await client.run("echo there is room again")) == "there is room again\n"

    async def test_how_many_are_remembered(self, new_sandbox: Callable[..., Any]) -> None:
        with new_sandbox("--kept", 2) as sandbox:
            async with aiohttp.ClientSession() as session:
                client = Client(sandbox, session)
                ids = [(await client.run("true"))[-1]["id"] for _ in range(4)]
                assert [run["id"] for run in (await client.get("/runs"))["runs"]] == [ids[3], ids[2]]

    async def test_a_message_that_is_too_large(self, client: Client) -> None:
        async with client.socket("/live") as live:
            await live.send_bytes(b"x" * (65 << 10))
            while (message := await live.receive(timeout=20 * SLOWNESS)).type is aiohttp.WSMsgType.BINARY:
                pass
            assert live.close_code == 1009, message


class TestTheHost:
    async def test_nothing_of_it_is_reachable(self, client: Client, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("of the host")
        with socket.socket(socket.AF_UNIX) as abstract:
            name = f"\0sandbox-test-{os.getpid()}"
            abstract.bind(name)
            abstract.listen()
            port = client.sandbox.url.rpartition(":")[2]
            subprocess.run(["busybox", "nc", "-w", "2", "127.0.0.1", port], stdin=subprocess.DEVNULL, check=True)
            lines = await client.run(f"""
                echo user $(id -u):$(id -g)
                echo interfaces $(ls /sys/class/net)
                nc -w 2 127.0.0.1 {port} </dev/null && echo the service
                echo unix sockets $(grep -c sandbox-test /proc/net/unix)
                cat {secret} 2>/dev/null
                echo processes $(ls -d /proc/[0-9]* | wc -l)
                ls -l /proc/self/fd | sed -n 's/.* \\([0-9]*\\) -> .*/descriptor \\1/p' | sort -u | grep -v ' [0123]$'
                touch /bin/x /etc/x /proc/sys/kernel/hostname 2>/dev/null && echo wrote
                mknod /tmp/disk b 8 0 2>/dev/null && echo made a device
                mount -t tmpfs x /tmp 2>/dev/null && echo mounted
                unshare -Ur true 2>/dev/null && echo a user namespace
                chroot / true 2>/dev/null && echo chroot
                grep -E '^(CapEff|NoNewPrivs)' /proc/self/status
                env | grep -iE 'token|sandbox_'
                true
            """)
        said = text(lines).splitlines()
        assert re.fullmatch(r"processes [1-9]", said[3]) is not None, said
        assert [*said[:3], *said[4:]] == [
            "user 65534:65534",
            "interfaces lo",
            "unix sockets 0",
            "CapEff:\t0000000000000000",
            "NoNewPrivs:\t1",
        ]

    async def test_runs_do_not_see_each_other(self, client: Client) -> None:
        id = await client.start("echo mine >/tmp/mine; exec sleep 61")
        try:
            await client.until(id, lambda run: run["state"] == "running")
            lines = await client.run("ls /tmp; ps | grep -c 'sleep 6[1]'; kill -9 -1; echo survived")
        finally:
            ended = await client.kill(id)
        assert text(lines) == "0\nsurvived\n"
        assert ended["reason"] == "killed"


class TestTerminal:
    async def said(self, terminal: Any, words: bytes) -> bytes:
        output = b""
        while words not in output:
            message = await terminal.receive(timeout=20 * SLOWNESS)
            assert message.type is aiohttp.WSMsgType.BINARY, (message, output)
            output += message.data
        return output

    async def test_a_shell_that_is_typed_into_and_resized(self, client: Client) -> None:
        id = await client.start("echo of the run >/tmp/file; sleep 60")
        try:
            await client.until(id, lambda run: run["state"] == "running")
            async with client.socket(f"/runs/{id}/terminal", origin=client.sandbox.url) as terminal:
                await terminal.send_str('{"rows": 33, "columns": 99}')
                await terminal.send_bytes(b"stty size; cat /tmp/file; id -u; tty\n")
                output = await self.said(terminal, b"/dev/pts/")
                assert b"33 99" in output
                assert b"of the run" in output
                assert b"65534" in output
                await terminal.send_str('{"rows": 10, "columns": 20}')
                await terminal.send_bytes(b"stty size\n")
                await self.said(terminal, b"10 20")
                await terminal.send_bytes(b"sh -c 'echo sleeps $((6 * 7)); exec sleep 50'\n")
                await self.said(terminal, b"sleeps 42")
                await terminal.send_bytes(b"\x03")
                await terminal.send_bytes(b"echo $((6 * 7))\n")
                await self.said(terminal, b"42")
                await terminal.send_bytes(b"exit\n")
                while (await terminal.receive(timeout=20 * SLOWNESS)).type is aiohttp.WSMsgType.BINARY:
                    pass
                assert terminal.close_code == 1000
            assert (await client.get(f"/runs/{id}"))["state"] != "ended"
        finally:
            await client.kill(id)

    async def test_it_ends_with_the_run_and_leaving_kills_its_shell(self, client: Client) -> None:
        id = await client.start("sleep 60")
        await client.until(id, lambda run: run["state"] == "running")
        async with client.socket(f"/runs/{id}/terminal") as left:
            await left.send_bytes(b"echo at $((6 * 7)); exec sleep 77\n")
            await self.said(left, b"at 42")
        async with client.socket(f"/runs/{id}/terminal") as terminal:
            await terminal.send_bytes(b"while ps | grep -q 'sleep 7[7]'; do :; done; echo gone $((6 * 7))\n")
            await self.said(terminal, b"gone 42")
            await client.kill(id)
            while (await terminal.receive(timeout=20 * SLOWNESS)).type is aiohttp.WSMsgType.BINARY:
                pass
            assert terminal.closed

    @pytest.mark.parametrize(
        "size",
        ['{"rows": 0, "columns": 80}', '{"rows": 24}', '{"rows": 9999, "columns": 80}', "24x80", '{"rows": "a"}'],
    )
    async def test_a_size_that_cannot_be(self, client: Client, size: str) -> None:
        id = await client.start("sleep 60")
        try:
            await client.until(id, lambda run: run["state"] == "running")
            async with client.socket(f"/runs/{id}/terminal") as terminal:
                await terminal.send_str(size)
                while (await terminal.receive(timeout=20 * SLOWNESS)).type is aiohttp.WSMsgType.BINARY:
                    pass
                assert terminal.close_code == 1008
        finally:
            await client.kill(id)

    async def test_where_there_can_be_none(self, client: Client) -> None:
        [*_, ended] = await client.run("true")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.socket(f"/runs/{ended['id']}/terminal")
        assert refused.value.status == 409
        async with client.request("GET", f"/runs/{ended['id']}/terminal") as answer:
            assert answer.status == 426

    async def test_only_so_many(self, client: Client) -> None:
        id = await client.start("sleep 60", pids=64)
        await client.until(id, lambda run: run["state"] == "running")
        terminals = [await client.socket(f"/runs/{id}/terminal") for _ in range(8)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.socket(f"/runs/{id}/terminal")
        assert refused.value.status == 429
        for terminal in terminals:
            await terminal.close()
        await client.kill(id)


class TestItsEnd:
    def containers(self, sandbox: Sandbox) -> list[str]:
        # crun keeps caches beside them, whose names begin with a dot
        return [name for name in os.listdir(sandbox.state / "containers") if not name.startswith(".")]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_no_container_is_left(self, new_sandbox: Callable[..., Any], number: signal.Signals) -> None:
        with new_sandbox() as sandbox:
            async with aiohttp.ClientSession() as session:
                client = Client(sandbox, session)
                ids = [await client.start("trap '' TERM; echo begun; sleep 60; sleep 60") for _ in range(3)]
                for id in ids:
                    await client.until(id, lambda run: run["output"] > 0)
                logs = await client.request("GET", f"/runs/{ids[0]}/logs?follow=1")
                async with client.socket("/live") as live, client.socket(f"/runs/{ids[1]}/terminal") as terminal:
                    posted = asyncio.create_task(client.run("echo posted; sleep 60"))
                    while (await client.get("/runs"))["active"] < 4:
                        pass
                    begun = time.monotonic()
                    sandbox.process.send_signal(number)
                    lines = await posted
                    assert lines[-1]["reason"] == "the service stopped"
                    assert b"begun" in await logs.read()
                    while not live.closed:
                        await live.receive(timeout=20 * SLOWNESS)
                    while not terminal.closed:
                        await terminal.receive(timeout=20 * SLOWNESS)
                output = await asyncio.to_thread(sandbox.ended)
            assert sandbox.process.returncode == 0, output
            assert "Traceback" not in output
            assert time.monotonic() - begun < 20 * SLOWNESS
            assert self.containers(sandbox) == []

    async def test_aiohttps_clean_up_leaves_none_either(
        self, runtime_path: Path, tmp_path: Path, state_root: Path, new_id: Callable[[], str], monkeypatch: Any
    ) -> None:
        """Embedded in another application, by its own runner."""
        needs_controllers("memory", "cpu", "pids")
        monkeypatch.syspath_prepend(str(SANDBOX))
        for name in ("runs", "service"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        from aiohttp import web
        from runs import Runs  # type: ignore[import-not-found]
        from service import Service  # type: ignore[import-not-found]

        runc = Runc(runtime_path, root=state_root)
        runs = Runs(runc, await busybox_rootfs(tmp_path / "rootfs"), prefix=new_id())
        runner = web.AppRunner(Service(runs, "token", []).app())
        await runner.setup()
        started = [runs.start("sleep 60") for _ in range(3)]
        while started[0].state != "running":
            await asyncio.sleep(0.01)
        started.append(runs.start("sleep 60"))  # not even begun
        await runner.cleanup()
        assert [run.reason for run in started] == ["the service stopped"] * 4
        assert all(run.state == "ended" for run in started)
        assert await runc.list() == []
        for name in ("runs", "service"):
            del sys.modules[name]

    async def test_what_a_killed_one_left_is_removed_by_the_next(self, new_sandbox: Callable[..., Any]) -> None:
        with new_sandbox() as sandbox:
            async with aiohttp.ClientSession() as session:
                client = Client(sandbox, session)
                await client.until(await client.start("sleep 60"), lambda run: run["state"] == "running")
            sandbox.process.kill()
            sandbox.ended()
            assert len(self.containers(sandbox)) == 1
        with new_sandbox() as sandbox:
            assert "which a killed service left" in sandbox.before
            assert self.containers(sandbox) == []


class TestItsStart:
    def said(self, *arguments: Any, **variables: str) -> str:
        process = run_sandbox(*arguments, **variables)
        output, _ = process.communicate(timeout=30 * SLOWNESS)
        assert process.returncode == 1
        return output

    def test_one_state_directory_is_for_one_service(self, sandbox: Sandbox, runtime_path: Path) -> None:
        assert "is another service's" in self.said(sandbox.state, runtime_path)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others: run the suite as root")
    def test_state_that_another_user_has_prepared_is_refused_and_no_hook_runs(
        self, tmp_path: Path, runtime_path: Path
    ) -> None:
        planted = tmp_path / "planted"
        (planted / "containers/x").mkdir(parents=True)
        (planted / "bundles/kept").mkdir(parents=True)
        ran = tmp_path / "ran"
        hook = {"path": "/bin/touch", "args": ["touch", str(ran)]}
        state = {"id": "x", "config": {"hooks": {"poststop": [hook]}}}
        (planted / "containers/x/state.json").write_text(json.dumps(state))
        os.chown(planted, 12345, 12345)
        assert "must not belong to another user" in self.said(planted, runtime_path)
        assert (planted / "containers/x/state.json").exists()
        assert (planted / "bundles/kept").exists()
        assert not ran.exists()

    def test_a_token_that_is_easily_guessed(self, tmp_path: Path, runtime_path: Path) -> None:
        said = self.said(tmp_path / "own", runtime_path, SANDBOX_TOKEN="secret")
        assert "the token must be 16 or more letters" in said
        (tmp_path / "token").write_text("x" * 15 + "\n")
        assert "the token must be" in self.said(tmp_path / "own", runtime_path, "--token-file", tmp_path / "token")

    async def test_a_token_of_ones_own_is_not_printed(
        self, tmp_path: Path, runtime_path: Path, sandbox: Sandbox
    ) -> None:
        process = run_sandbox(tmp_path / "own", runtime_path, SANDBOX_TOKEN="0123456789abcdef")
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            address = re.fullmatch(r"sandbox: (http://127\.0\.0\.1:\d+)/\n", line)
            assert address is not None, line
            headers = {"Authorization": "Bearer 0123456789abcdef"}
            async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{address[1]}/runs") as answer:
                assert answer.status == 200
        finally:
            process.terminate()
            process.communicate()

    def test_no_runtime_or_no_limits(self, tmp_path: Path, fake_runtime: Callable[[str], Path]) -> None:
        said = self.said(tmp_path / "own", tmp_path / "nowhere")
        assert "nowhere" in said
        assert "python -m runc_async doctor" in said
        said = self.said(tmp_path / "own", fake_runtime('echo "no cgroups here" >&2; exit 1'))
        assert "sandbox: " in said
        assert "Traceback" not in said

    async def test_without_the_pages_libraries_it_says_how_to_get_them(
        self, new_sandbox: Callable[..., Any], tmp_path: Path
    ) -> None:
        folder = tmp_path / "copy"
        shutil.copytree(SANDBOX, folder, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        command = f"npm install --no-package-lock --prefix {folder}/page"
        with new_sandbox(folder=folder) as sandbox:
            assert command in sandbox.process.stdout.readline()
            async with aiohttp.ClientSession() as session:
                async with session.get(f"{sandbox.url}/lib/xterm.js") as answer:
                    assert answer.status == 404
                    assert command in (await answer.json())["error"]
                assert text(await Client(sandbox, session).run("echo all the same")) == "all the same\n"


async def test_under_load(client: Client) -> None:
    """Many more clients than may run at once: whoever is let in gets exactly its own output, the others are told."""
    clients = asyncio.Semaphore(16)
    refusals = 0

    async def one(number: int) -> None:
        nonlocal refusals
        program = f"echo {number}; head -c 20000 /dev/zero | tr '\\0' x; echo; exit {number % 200}"
        async with clients:
            while True:
                async with client.request("POST", "/runs", json={"program": program}) as answer:
                    if answer.status == 429:
                        refusals += 1
                    else:
                        lines = [json.loads(line) async for line in answer.content]
                        break
                await asyncio.sleep(random.uniform(0.02, 0.2))
        assert text(lines) == f"{number}\n{'x' * 20000}\n"
        assert lines[-1]["status"] == number % 200

    async def look() -> None:
        while True:
            assert (await client.get("/runs"))["active"] <= 4
            await asyncio.sleep(0.05)

    begun = time.monotonic()
    looking = asyncio.create_task(look())
    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        for number in range(LOAD):
            group.create_task(one(number))
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert looking.cancelled()
    print(f"{LOAD} runs in {time.monotonic() - begun:.1f} s, {refusals} refusals")
    assert refusals > 0
    assert (await client.get("/runs"))["active"] == 0
