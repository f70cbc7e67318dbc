"""Temporary files that no other user can read, swap or make in advance."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from . import _reserve

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["private_directory"]


@contextlib.contextmanager
def private_directory() -> Generator[str]:
    """A new directory of mode 0700, gone afterwards; its path.

    It is made below ``XDG_RUNTIME_DIR`` where that is set, else in the temporary directory.

    :raises OSError: it cannot be made.
    """
    _reserve.fill()
    path = tempfile.mkdtemp(prefix="runc-async-", dir=os.environ.get("XDG_RUNTIME_DIR") or None)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if os.path.exists(path):  # it could not be read for lack of a descriptor
            with _reserve.given_up():
                shutil.rmtree(path, ignore_errors=True)
