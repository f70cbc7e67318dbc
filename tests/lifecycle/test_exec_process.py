"""What a process of ``exec`` is given: at least the confinement of the container's own process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runc_async import FileIO
from runc_async._lifecycle.exec_process import build_exec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runc_async import Runc

pytestmark = pytest.mark.anyio

OWN: dict[str, Any] = {
    "args": ["init"],
    "cwd": "/srv",
    "env": ["PATH=/bin"],
    "noNewPrivileges": True,
    "user": {"uid": 5, "gid": 6, "additionalGids": [7]},
    "capabilities": {"bounding": ["CAP_KILL"]},
    "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 10, "soft": 10}],
    "terminal": True,
}


def build(process: Any, own: dict[str, Any] = OWN, **options: Any) -> dict[str, Any]:
    words, files, _ = build_exec(process, options, own)
    assert list(words) == []
    built: dict[str, Any] = json.loads(files["process"])
    return built


def test_arguments_become_the_containers_own_process_with_another_program() -> None:
    assert build(["ls", "-l"]) == {**OWN, "args": ["ls", "-l"], "terminal": False}


def test_options_change_it() -> None:
    built = build(
        ["ls"],
        cwd="/tmp",
        env={"A": "1"},
        user="8:9",
        additional_gids=[10],
        tty=True,
        cap="CAP_CHOWN",
        process_label="label",
        apparmor="profile",
    )
    assert built["cwd"] == "/tmp"
    assert built["env"] == ["PATH=/bin", "A=1"]
    assert built["user"] == {"uid": 8, "gid": 9, "additionalGids": [10]}
    assert built["terminal"] is True
    assert built["capabilities"]["bounding"] == ["CAP_KILL", "CAP_CHOWN"]
    assert built["capabilities"]["ambient"] == ["CAP_CHOWN"]
    assert (built["selinuxLabel"], built["apparmorProfile"]) == ("label", "profile")


def test_another_user_has_none_of_the_own_users_further_groups() -> None:
    assert build(["ls"], user=0)["user"] == {"uid": 0, "gid": 6, "additionalGids": []}
    assert build(["ls"], additional_gids=[8])["user"]["additionalGids"] == [7, 8]


def test_an_object_keeps_what_it_says_and_inherits_what_confines_it() -> None:
    built = build({"args": ["ls"], "cwd": "/", "user": {"uid": 0, "gid": 0}})
    assert built["noNewPrivileges"] is True
    assert built["capabilities"] == OWN["capabilities"]
    assert built["rlimits"] == OWN["rlimits"]
    assert built["user"] == {"uid": 0, "gid": 0}
    assert "terminal" not in built
    assert build({"args": ["ls"], "noNewPrivileges": False})["noNewPrivileges"] is False


def test_where_the_containers_process_is_not_known_arguments_stay_arguments() -> None:
    words, files, options = build_exec(["ls"], {"cwd": "/x"}, {})
    assert (list(words), dict(files), dict(options)) == (["ls"], {}, {"cwd": "/x"})


def test_a_process_is_words_or_an_object_and_never_one_string() -> None:
    for wrong in ("ls -l", b"ls"):
        with pytest.raises(TypeError, match="not one string"):
            build_exec(wrong, {}, OWN)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not int"):
        build_exec(5, {}, OWN)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("extra_args", "keyword"), [(["--env", "A=1"], "env"), (["--cwd=/"], "cwd"), (["-u", "5"], "user"), (["-t"], "tty")]
)
def test_a_flag_that_the_runtime_would_ignore_is_refused(extra_args: list[str], keyword: str) -> None:
    with pytest.raises(ValueError, match=f"must be given as {keyword}="):
        build_exec(["ls"], {}, OWN, extra_args)


@pytest.mark.parametrize("how", ["Runc.exec", "an object", "Container.run"])
async def test_no_new_privileges_user_and_limits_hold_for_every_further_process(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path, how: str
) -> None:
    limits = [{"type": "RLIMIT_NOFILE", "hard": 77, "soft": 77}]
    bundle = make_bundle("sleep", "60", user={"uid": 65534, "gid": 65534}, rlimits=limits)
    script = "grep -E 'NoNewPrivs|^Uid|CapEff' /proc/self/status; ulimit -n"
    async with runc.container(container_id, bundle) as container:
        await container.start()
        if how == "Container.run":
            said = (await container.run(["sh", "-c", script])).stdout.decode()
        else:
            words = ["sh", "-c", script]
            process: Any = words if how == "Runc.exec" else {"args": words, "cwd": "/", "env": ["PATH=/bin"]}
            assert await runc.exec(container_id, process, io=FileIO(stdout=tmp_path / "said")) == 0
            said = (tmp_path / "said").read_text()
    assert said.split() == ["Uid:", *["65534"] * 4, "CapEff:", "0" * 16, "NoNewPrivs:", "1", "77"]
