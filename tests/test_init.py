"""What an import brings, and what it leaves for later."""

from __future__ import annotations

import subprocess
import sys

import pytest

import runc_async

IMPORT = """
import sys
import runc_async
print(*(name for name in sys.argv[1:] if name in sys.modules))
runc_async.Bundle, runc_async.default_spec, runc_async.Spec
print(*(name for name in sys.argv[1:] if name in sys.modules))
runc_async.tar_rootfs
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_an_import_brings_no_event_loop_and_nothing_for_bundles_until_they_are_needed() -> None:
    names = ("trio", "uvloop", "aiohttp", "asyncio", "tarfile", "runc_async._bundle.bundle", "runc_async._bundle.spec")
    command = [sys.executable, "-c", IMPORT, *names]
    at_once, bundles, archives = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert at_once == ""
    assert set(bundles.split()) == {"runc_async._bundle.bundle", "runc_async._bundle.spec"}
    assert set(archives.split()) == {"tarfile", *bundles.split()}


def test_every_public_name_is_there_and_listed_and_no_other() -> None:
    assert {name for name in runc_async.__all__ if getattr(runc_async, name) is None} == set()
    assert set(runc_async.__all__) <= set(dir(runc_async))
    with pytest.raises(AttributeError, match="module 'runc_async' has no attribute 'Bundel'"):
        runc_async.Bundel  # noqa: B018
