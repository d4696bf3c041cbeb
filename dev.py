#!/usr/bin/env python3
"""Run the tests or the example, from nothing but a checkout and Python 3.11 or later.

    python3 dev.py test [--install-servers] [pytest arguments ...]
    python3 dev.py example [--exit-after-race] [--store redis|server]

--store redis keeps the example's locks in Redis: the one at REDIS_URL, or, if that is not set, a
redis-server that the example starts and stops itself (apt install redis-server). --store server
keeps them in a lock server (manage.py run_lock_server), which it starts and stops likewise.

With pytest arguments, the chosen tests are run once, on the newest Python that is installed.

Everything that Python needs goes into .venv and .tox. Only --install-servers touches the system.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
MINIMUM = (3, 11)
# The environments of tox.ini that run the tests, the newest first.
ENVIRONMENTS = {
    "python3.13": "py313-django61",
    "python3.12": "py312-django60",
    "python3.11": "py311-django52",
}
APT_GET = ["apt-get", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300"]


def main() -> None:
    """Do what the command line asks for; tox takes this process over."""
    if sys.version_info < MINIMUM:
        sys.exit(f"dev.py needs Python {'.'.join(map(str, MINIMUM))} or later: {sys.version}")
    options, arguments = parse_arguments()
    os.chdir(ROOT)
    if options.install_servers:
        install(missing_server_packages())
    prepare_tox()
    if options.command == "example":
        run_tox(["-e", "example"], arguments)
    run_tox(["-e", newest_environment()] if arguments else [], arguments)


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """Separate this script's own arguments from those that it passes on."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["test", "example"])
    parser.add_argument(
        "--install-servers",
        action="store_true",
        help="first install the missing servers, client libraries and browser with apt-get",
    )
    options, arguments = parser.parse_known_args()
    return options, [argument for argument in arguments if argument != "--"]


def missing_server_packages() -> list[str]:
    """Return the Debian packages that the tests need and this machine lacks."""
    present = {
        "postgresql": any(Path("/usr/lib/postgresql").glob("*/bin/postgres")) or has("postgres"),
        "pgbouncer": has("pgbouncer"),
        "mariadb-server": has("mariadbd"),
        "redis-server": has("redis-server"),
        "memcached": has("memcached"),
        # mysqlclient is compiled, from here on to python3-dev.
        "libmariadb-dev": has("mariadb_config"),
        "pkg-config": has("pkg-config"),
        "gcc": has("gcc"),
        "spin": has("spin"),
        "gettext": has("msgfmt"),
        "python3-dev": Path(sysconfig.get_path("include"), "Python.h").exists(),
        "chromium": has("chromium", "chromium-browser", "google-chrome"),
    }
    return [package for package, is_present in present.items() if not is_present]


def has(*names: str) -> bool:
    """Return whether one of the programs is installed, also in the administrator's PATH."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return any(shutil.which(name, path=path) for name in names)


def install(packages: list[str]) -> None:
    """Install Debian packages, or exit saying how to."""
    if not packages:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or not has("apt-get"):
        sys.exit(f"These are missing: {' '.join(packages)}\nAs root, run: {' '.join(command)}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run_quietly("Reading the package lists", [*APT_GET, "update"])
    run_quietly(f"Installing {', '.join(packages)}", [*APT_GET, *command[1:]])


def prepare_tox() -> None:
    """Make .venv and install tox into it, unless it is there."""
    if VENV.is_file():  # tox writes it when it is run without this script
        VENV.unlink()
    if not succeeds([VENV_PYTHON, "--version"]):
        if not importlib.util.find_spec("ensurepip"):
            install(["python3-venv"])
        run_quietly("Creating .venv", [sys.executable, "-m", "venv", "--clear", VENV])
    if not succeeds([VENV_PYTHON, "-m", "tox", "--version"]):
        run_quietly("Installing tox", [VENV_PYTHON, "-m", "pip", "install", "--quiet", "tox"])


def newest_environment() -> str:
    """Return the environment of the newest Python that is installed."""
    found = {Path(path).name for path in pyenv_interpreters()}
    present = (name for python, name in ENVIRONMENTS.items() if python in found or has(python))
    return next(present, "py313-django61")  # then tox reports that there is no Python for it


def run_tox(environments: list[str], arguments: list[str]) -> None:
    """Replace this process by tox, which then gets Ctrl-C and every other signal itself."""
    interpreters = pyenv_interpreters()
    discover = ["--discover", *interpreters] if interpreters else []
    # An empty list after "--" would mean tox.ini's own choice of tests.
    passed_on = ["--", *arguments] if arguments else []
    command = [str(VENV_PYTHON), "-m", "tox", "run", *environments, *discover, *passed_on]
    sys.stdout.flush()
    os.execv(command[0], command)


def pyenv_interpreters() -> list[str]:
    """Return the interpreters that pyenv has installed, which need not be in PATH."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return sorted(map(str, root.glob("versions/3.1[1234]*/bin/python3.1[1234]")))


def succeeds(command: list[str | Path]) -> bool:
    """Return whether a command can be run and succeeds."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run_quietly(step: str, command: list[str | Path]) -> None:
    """Run a command, printing its purpose; if it fails, show its output and exit."""
    print(f"{step} ...", flush=True)
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout)
        sys.exit(f"{step} failed: {' '.join(map(str, command))}")


if __name__ == "__main__":
    main()
