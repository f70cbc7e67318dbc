"""What travels: jobs, and what they need."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from runc_async import default_spec
from runc_async.contrib.dask import Job
from runc_async.contrib.dask._job import find_needs


def test_the_limits_of_the_spec_are_what_it_needs() -> None:
    assert find_needs(Job(default_spec(["true"]), "/srv")) == {"containers": 1}
    limited = default_spec(["true"], memory="64M", cpus=0.5)
    assert find_needs(Job(limited, "/srv")) == {"containers": 1, "memory": 64 << 20, "cpus": 0.5}
    assert find_needs(Job(limited, "/srv"), {"cpus": 2, "GPU": 1}) == {
        "containers": 1,
        "memory": 64 << 20,
        "cpus": 2,
        "GPU": 1,
    }


@pytest.mark.parametrize("wrong", [{"name": ""}, {"name": "a/b"}, {"name": "-a"}, {"timeout": 0}, {"output_limit": -1}])
def test_what_cannot_be_right_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Job(default_spec(["true"]), "/srv", **wrong)


def test_it_travels() -> None:
    job = Job(default_spec(["true"]), "/srv", input=b"\0", timeout=1.5)
    assert pickle.loads(pickle.dumps(job)) == job
