"""`Job`: what it refuses, and what it makes of its specification."""

from __future__ import annotations

import re
from typing import Any

import pytest

from runc_async import Job, default_spec


@pytest.mark.parametrize(
    ("keywords", "error", "reason"),
    [
        ({"name": "a/b"}, ValueError, "name must be letters"),
        ({"name": ""}, ValueError, "name must be letters"),
        ({"input": "text"}, TypeError, "input must be bytes, not str"),
        ({"collect": "a.txt"}, TypeError, "collect must be a sequence"),
        ({"timeout": 0}, ValueError, "timeout must be a positive number"),
        ({"cpu_time": -1.0}, ValueError, "cpu_time must be a positive number"),
        ({"output_limit": -1}, ValueError, "output_limit must not be negative"),
        ({"work": "a lot"}, ValueError, "work must be a number of bytes"),
        ({"work": 1}, ValueError, "work must be at least 4096 bytes"),
        ({"work_path": "work"}, ValueError, "work_path must be absolute"),
        ({"files": {"../a": b""}}, ValueError, ".."),
        ({"collect": ["../a"]}, ValueError, ".."),
    ],
)
def test_what_cannot_be_right_is_refused(keywords: dict[str, Any], error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=re.escape(reason)):
        Job(default_spec(["true"]), "/", **keywords)


def test_work_is_a_tmpfs_of_the_programs_user_and_the_specification_stays_as_it_is() -> None:
    spec = default_spec(["true"], user="1:2", rootless=False)
    before = len(spec["mounts"])
    found = Job(spec, "/", work="64M").container_spec()["mounts"]
    assert len(spec["mounts"]) == before
    assert found[-1]["destination"] == "/work"
    assert {"size=67108864", "uid=1", "gid=2", "nosuid", "nodev"} <= set(found[-1]["options"])
