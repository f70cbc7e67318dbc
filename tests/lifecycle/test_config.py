"""Reading ``config.json`` as far as a call needs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from runc_async._lifecycle.config import read_config

if TYPE_CHECKING:
    from pathlib import Path


def test_a_specification(tmp_path: Path) -> None:
    process = {"args": ["true"], "cwd": "/", "noNewPrivileges": True}
    document = {"process": process, "linux": {"cgroupsPath": "/a/b", "seccomp": {"syscalls": []}}, "mounts": []}
    (tmp_path / "config.json").write_text(json.dumps(document))
    config = read_config(str(tmp_path))
    assert config.cgroups_path == "/a/b"
    assert config.process == process
    assert not config.is_missing
    assert not config.names_no_program


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        ([{"destination": "/a", "type": "overlay"}, {"destination": "/b"}], [("/a", "overlay"), ("/b", "")]),
        ([{"type": 5}], []),
        (None, []),
    ],
)
def test_the_mounts_of_a_specification(tmp_path: Path, mounts: object, found: list[tuple[str, str]]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"mounts": mounts}))
    assert read_config(str(tmp_path)).mounts == found


@pytest.mark.parametrize("text", ["{}", '{"process": {}}', '{"process": {"args": []}}', '{"linux": null}'])
def test_one_without_a_program(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert read_config(str(tmp_path)).names_no_program


@pytest.mark.parametrize("text", ["", "{", "[]", '{"linux": 5}', '{"linux": {"cgroupsPath": 1}}'])
def test_what_is_not_a_specification_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    config = read_config(str(tmp_path))
    assert (config.cgroups_path, config.process, config.names_no_program) == (None, {}, False)
    assert not config.is_missing


def test_a_missing_one_and_one_by_another_name(tmp_path: Path) -> None:
    assert read_config(str(tmp_path)).is_missing
    assert read_config("/no/such").is_missing
    (tmp_path / "other.json").write_text('{"linux": {"cgroupsPath": "x"}}')
    assert read_config(str(tmp_path), "other.json").cgroups_path == "x"


@pytest.mark.parametrize(
    ("rlimits", "found"),
    [
        ([{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}, {"type": "RLIMIT_FSIZE", "soft": 7, "hard": 8}], 7),
        ([{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}], None),
        (None, None),
        (["RLIMIT_FSIZE"], None),
        ([{"type": "RLIMIT_FSIZE", "soft": "much"}], None),
    ],
)
def test_the_limit_of_files_of_its_process(tmp_path: Path, rlimits: object, found: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"process": {"rlimits": rlimits}}))
    assert read_config(str(tmp_path)).fsize == found
