"""Check code as users write it with pyright, as it is without django-stubs.

Pyright finds Django in a folder of links then, and reads its untyped source.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.paths import ROOT

CHECKED = ("locks.py", "operators.py")
"""Without stubs, Django's models have no types that a fenced one could keep."""


def main() -> int:
    """Run pyright; return its exit status."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        for package in ("django", "asgiref"):
            spec = importlib.util.find_spec(package)
            assert spec
            assert spec.origin
            (directory / package).symlink_to(Path(spec.origin).parent)
        for file in CHECKED:
            (directory / file).symlink_to(ROOT / "tests" / "typing" / file)
        (directory / "pyrightconfig.json").write_text(
            json.dumps(
                {
                    "include": CHECKED,
                    "typeCheckingMode": "basic",
                    "pythonVersion": "3.11",
                    "extraPaths": [str(ROOT)],
                }
            )
        )
        # An interpreter that has no package installed, and so no stubs.
        python = os.path.realpath(sys.executable)
        command = [sys.executable, "-m", "pyright", "-p", str(directory), "--pythonpath", python]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
