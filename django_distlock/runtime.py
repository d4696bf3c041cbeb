"""What the process, its server and the versions of libraries allow."""

import sys
from typing import Any


def lacks_threads() -> bool:
    """Tell whether uWSGI runs this process without --enable-threads: new threads never run."""
    options: dict[str, Any] = getattr(sys.modules.get("uwsgi"), "opt", {})
    return bool(options) and not {"threads", "enable-threads"} & options.keys()
