"""The built distributions, installed in an otherwise empty environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import requires
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from email.message import Message

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SITE = "https://github.com/django-distlock/django-distlock"
FILES = "https://raw.githubusercontent.com/django-distlock/django-distlock/main"
NOT_SOURCES = shutil.ignore_patterns(".git", ".tox", ".*_cache", "__pycache__", "build", "dist")
FIRST_LOCK = """
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.configure(
        INSTALLED_APPS=["django_distlock"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "locks.sqlite3"}},
    )
    django.setup()
    call_command("migrate", verbosity=0)

    from django_distlock import acquire_lock, release_lock

    assert acquire_lock("1234collectPayment")
    assert acquire_lock("1234collectPayment") is None
    assert release_lock("1234collectPayment") is True
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from it, out of a copy that contains a virtualenv."""
    directory = tmp_path_factory.mktemp("distributions")
    source = directory / "source"
    shutil.copytree(
        ROOT, source, ignore=lambda path, names: {*NOT_SOURCES(path, names), ".venv"} & {*names}
    )
    (source / ".venv").mkdir()
    (source / ".venv" / "pyvenv.cfg").touch()
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, cwd=source)
    return directory


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty environment and install the wheel into it, offline."""
    directory = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=directory)
    offline = ["--no-index", "--find-links", os.environ["DISTLOCK_WHEELHOUSE"]]
    run(*pip(directory), "install", "--no-compile", *offline, wheel, cwd=directory)
    return directory


def pip(directory: Path) -> list[str]:
    """Return a pip command for the environment in `directory`, without configuration files."""
    python = directory / "venv" / "bin" / "python"
    return [sys.executable, "-m", "pip", "--isolated", "--python", str(python)]


def metadata(wheel: Path) -> Message:
    """Return the wheel's metadata, which a package index and pip read."""
    name = "django_distlock-0.1.0.dist-info/METADATA"
    return Parser().parsestr(zipfile.ZipFile(wheel).read(name).decode())


def links(text: str) -> list[str]:
    """Return the targets of the links and images of a Markdown document."""
    return re.findall(r"\]\(([^)\s]+)\)", text)


def closure(distribution: str) -> set[str]:
    """Return the names of a distribution and of all its requirements."""
    names: set[str] = {canonicalize_name(distribution)}
    for requirement in map(Requirement, requires(distribution) or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            names |= closure(requirement.name)
    return names


@pytest.mark.once
def test_the_wheel_has_the_package_and_its_pytest_plugin_and_nothing_else(wheel: Path) -> None:
    """Nobody gets tests or the example into their site-packages. Pytest finds the plugin."""
    archive = zipfile.ZipFile(wheel)
    assert {Path(name).parts[0] for name in archive.namelist()} == {
        "django_distlock",
        "django_distlock-0.1.0.dist-info",
        "django_distlock_pytest.py",
    }
    points = archive.read("django_distlock-0.1.0.dist-info/entry_points.txt").decode()
    assert "[pytest11]\ndjango_distlock = django_distlock_pytest\n" in points


@pytest.mark.once
def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    """Templates, migrations and py.typed are there too."""
    package = ROOT / "django_distlock"
    files = (path for path in package.rglob("*") if path.is_file())
    expected = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    assert expected >= {
        "django_distlock/py.typed",
        "django_distlock/locale/de/LC_MESSAGES/django.mo",
        "django_distlock/migrations/0001_initial.py",
        "django_distlock/management/commands/clear_stale_locks.py",
    }
    assert expected <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.once
def test_the_sdist_has_the_tests_and_no_virtualenv(distributions: Path) -> None:
    """Distributors can run the tests from it."""
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        top = {Path(name).parts[1] for name in sdist.getnames()}
    assert top >= {"django_distlock", "tests", "pyproject.toml", "tox.ini", "LICENSE", "README.md"}
    assert ".venv" not in top


@pytest.mark.once
def test_the_links_of_the_readme_work_on_a_package_index(wheel: Path) -> None:
    """Each leads to its file in the repository; headings are on the same page."""
    shown = metadata(wheel).get_payload()
    assert isinstance(shown, str)
    expected = [absolute(link) for link in links((ROOT / "README.md").read_text("utf-8"))]
    assert links(shown) == expected
    assert f"{SITE}/blob/main/docs/how-to/transactions.md" in expected
    for attribute, picture in (("src", "admin-light.png"), ("srcset", "admin-dark.png")):
        assert f'{attribute}="{FILES}/docs/images/{picture}"' in shown


def absolute(link: str) -> str:
    """Return a README link's absolute target."""
    if link.startswith("#"):
        return link
    assert (ROOT / link.partition("#")[0]).is_file()
    return f"{FILES}/{link}" if link.endswith(".png") else f"{SITE}/blob/main/{link}"


@pytest.mark.once
def test_the_metadata_say_where_the_project_is_and_where_it_runs(wheel: Path) -> None:
    """A package index links to these."""
    fields = metadata(wheel)
    urls = dict(url.split(", ") for url in fields.get_all("Project-URL", []))
    assert urls.pop("Documentation") == "https://django-distlock.readthedocs.io/en/stable/"
    assert urls.keys() == {"Homepage", "Source", "Changelog", "Issues"}
    assert all(url.startswith(SITE) for url in urls.values())
    systems = [each for each in fields.get_all("Classifier", []) if "Operating System" in each]
    assert systems == ["Operating System :: POSIX"]


@pytest.mark.once
@pytest.mark.needs("wheelhouse")
def test_the_sdist_builds_the_same_wheel_offline(
    distributions: Path, wheel: Path, tmp_path: Path
) -> None:
    """With the declared build requirements."""
    (sdist,) = distributions.glob("*.tar.gz")
    offline = ["--no-index", "--find-links", os.environ["DISTLOCK_WHEELHOUSE"]]
    pip_wheel = [sys.executable, "-m", "pip", "--isolated", "wheel", "--no-deps", *offline]
    run(*pip_wheel, "--wheel-dir", tmp_path, sdist, cwd=tmp_path)
    assert contents(tmp_path / wheel.name) == contents(wheel)


def contents(wheel: Path) -> dict[str, bytes]:
    """Return all files of a wheel."""
    archive = zipfile.ZipFile(wheel)
    return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.once
def test_the_lowest_versions_that_are_promised_are_tested() -> None:
    """Django's and those of the extras: tox -e lowest has exactly them."""
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    promised = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    pinned = [each for name in LOWEST for each in groups[name] if isinstance(each, str)]
    lowest = {requirement.name: bound for requirement, bound in bounds(pinned, "==")}
    assert lowest.keys() >= {"django", "redis", "psycopg", "pymemcache", "mysqlclient"}
    for requirement, bound in bounds(promised, ">="):
        assert lowest[requirement.name] == bound


LOWEST = ("lowest", "lowest-mysql")


def bounds(requirements: list[str], operator: str) -> list[tuple[Requirement, Version]]:
    """Return the version of each requirement, each of which has exactly one."""
    found = []
    for requirement in map(Requirement, requirements):
        [specifier] = requirement.specifier
        assert specifier.operator == operator
        found.append((requirement, Version(specifier.version)))
    return found


@pytest.mark.needs("wheelhouse")
def test_the_installed_wheel_locks_and_brings_django_and_nothing_else(environment: Path) -> None:
    """The drivers are extras, and the README's first steps work without them."""
    listed = json.loads(run(*pip(environment), "list", "--format=json", cwd=environment))
    installed = {canonicalize_name(entry["name"]) for entry in listed}
    assert installed == closure("django") | {"django-distlock"}
    python = environment / "venv" / "bin" / "python"
    run(python, "-I", "-c", textwrap.dedent(FIRST_LOCK), cwd=environment)
