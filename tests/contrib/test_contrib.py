"""What joins the library to other programs is not there until it is asked for."""

from __future__ import annotations

import subprocess
import sys


def test_the_library_imports_none_of_it() -> None:
    code = "import sys, runc_async.__main__; print({'dask', 'runc_async.contrib'} & {*sys.modules})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "set()\n"
