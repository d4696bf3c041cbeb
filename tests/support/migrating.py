"""`python -m tests.support.migrating <file>`: run `migrate`, and prove that nobody else does."""

from __future__ import annotations

import sys
from pathlib import Path

from django.core.management import ManagementUtility


def main() -> None:
    """Fail if another process does the same now: it would have the file."""
    file = Path(sys.argv[1])
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        sys.exit("NOT ALONE")
    ManagementUtility(["manage.py", "migrate", "--no-color", "--skip-checks"]).execute()
    file.unlink()


if __name__ == "__main__":
    main()
