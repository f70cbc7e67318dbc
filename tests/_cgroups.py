"""What containers have of cgroups here, in either version."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ._leaks import CGROUPS

VERSION_2 = (CGROUPS / "cgroup.controllers").exists()


def has_controller(name: str) -> bool:
    """Whether containers have this controller here."""
    if VERSION_2:
        return name in (CGROUPS / "cgroup.controllers").read_text().split()
    return (CGROUPS / name).is_dir()


def needs_controllers(*names: str) -> None:
    """Skip a test that needs what is not here."""
    missing = [name for name in names if not has_controller(name)]
    if missing:
        version = 2 if VERSION_2 else 1
        pytest.skip(
            f"no controllers {', '.join(missing)} in this cgroup v{version}: the kernel has them in the other one"
        )


def cgroup_file(container: str, v1: str, v2: str) -> str:
    """The content of a file in a container's cgroup, by its names in both versions."""
    name = v2 if VERSION_2 else v1
    folders = [Path(at) for at, _, files in os.walk(CGROUPS) if os.path.basename(at) == container and name in files]
    assert folders, f"no {name} of {container}"
    return (folders[0] / name).read_text().strip()
