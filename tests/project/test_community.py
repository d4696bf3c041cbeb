"""Files for people who join the project say what is true of it."""

from __future__ import annotations

import re
import shlex
import tomllib
from configparser import ConfigParser
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest

yaml = pytest.importorskip("yaml")
pytest.importorskip("markdown_it")

from django.core.management import call_command  # noqa: E402

from django_distlock.contract import LockBackendContract  # noqa: E402
from tests.documentation.plain_english import complaints  # noqa: E402
from tests.support.paths import ROOT  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SITE = "https://github.com/django-distlock/django-distlock"
PAGES = [
    ROOT / "CODE_OF_CONDUCT.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / ".github" / "pull_request_template.md",
]
GITHUB = sorted((ROOT / ".github").rglob("*.yml"))
WORKFLOWS = [path for path in GITHUB if path.parent.name == "workflows"]
FORMS = [path for path in GITHUB if path.parent.name == "ISSUE_TEMPLATE"]
PATH = re.compile(
    r"(?<![\w/.:-])(?:\.?[\w-]+/)+[\w.-]*|(?<![\w/.-])\.?\w[\w-]*\.(?:md|py|toml|yml)\b"
)
"""A path in the project, as these files write one."""
MADE = {".tox/py313-django61/bin/python", ".venv/bin/tox", ".tox/docs/site"}
"""Paths that the commands of the same page make."""


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def steps(workflow: Path) -> list[dict[str, Any]]:
    """Return the steps of all jobs, with jobs that call another workflow as steps."""
    jobs = load(workflow)["jobs"].values()
    return [step for job in jobs for step in [job, *job.get("steps", [])]]


def code(page: Path) -> list[str]:
    """Return what a page sets as code, without blocks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command of a page."""
    text = page.read_text("utf-8")
    lines = [*re.findall(r"^\$ (.+)$", text, re.MULTILINE), *re.findall(r"\| `([^`]+)` \|", text)]
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    """A contributor finds what it speaks of."""
    named = {path for text in code(page) for path in PATH.findall(text)}
    named |= {word for words in commands(page) for word in words if PATH.fullmatch(word)}
    assert [path for path in sorted(named - MADE) if not is_there(path)] == []


def is_there(path: str) -> bool:
    """Tell whether a path exists, also a workflow that is named without its folder."""
    return (ROOT / path).exists() or path in {workflow.name for workflow in WORKFLOWS}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_page_is_in_plain_english(name: str) -> None:
    """As the documentation is."""
    assert complaints((ROOT / name).read_text("utf-8")) == []


def test_environments_that_contributors_run_are_tox_s() -> None:
    """Each `tox run -e` names one of tox.ini."""
    tox = ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    run = [words[-1] for words in commands(ROOT / "CONTRIBUTING.md") if words[0] == ".venv/bin/tox"]
    assert {"lint", "type", "docs"} <= {*run}
    assert [name for name in run if not tox.has_section(f"testenv:{name}")] == []


def test_steps_to_add_a_store_name_what_there_is() -> None:
    """The contract's class has this name, and is subclassed in this module."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert f"`{LockBackendContract.__name__}` in `tests/contract/test_contract.py`" in text


def test_this_version_is_supported() -> None:
    """SECURITY.md has a row for it."""
    minor = PROJECT["project"]["version"].rpartition(".")[0]
    assert f"| {minor}.x | yes |" in (ROOT / "SECURITY.md").read_text("utf-8")


def test_reports_go_to_a_form_that_only_maintainers_read() -> None:
    """All pages have the same one, and no placeholder is left."""
    form = f"{SITE}/security/advisories/new"
    for page in (ROOT / "CODE_OF_CONDUCT.md", ROOT / "SECURITY.md"):
        text = page.read_text("utf-8")
        assert form in text
        assert "INSERT" not in text
    assert form in [
        link["url"] for link in load(ROOT / ".github/ISSUE_TEMPLATE/config.yml")["contact_links"]
    ]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned(workflow: Path) -> None:
    """By their commit, with the version beside it. What the project has itself exists."""
    text = workflow.read_text("utf-8")
    for used in (step["uses"] for step in steps(workflow) if "uses" in step):
        if used.startswith("./"):
            assert (ROOT / used).is_file()
        else:
            assert re.search(rf"{re.escape(used)} # v\d+\.\d+\.\d+$", text, re.MULTILINE)
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", used)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_may_read_at_most(workflow: Path) -> None:
    """But the upload may prove to PyPI which workflow it is."""
    loaded = load(workflow)
    assert loaded["permissions"] == {}
    for name, job in loaded["jobs"].items():
        upload = workflow.name == "publish.yml" and name == "publish"
        assert job["permissions"] == ({"id-token": "write"} if upload else {"contents": "read"})


def test_ci_runs_what_contributors_run_on_each_python() -> None:
    """.ci/run is all of it. Debian 12 has the lowest Python; uv installs the others."""
    runs = [step["run"] for step in steps(ROOT / ".github/workflows/ci.yml") if "run" in step]
    assert ".ci/run" in runs
    (installed,) = [run for run in runs if "uv python install" in run]
    versions = re.findall(r"3\.\d+", installed)
    classifiers = "\n".join(PROJECT["project"]["classifiers"])
    assert ["3.11", *versions] == re.findall(r"Python :: (3\.\d+)", classifiers)


def test_publishing_needs_no_token() -> None:
    """PyPI trusts the workflow, in its environment."""
    job = load(ROOT / ".github/workflows/publish.yml")["jobs"]["publish"]
    assert job["environment"]["name"] == "pypi"
    assert job["needs"] == "build"
    assert "secrets" not in (ROOT / ".github/workflows/publish.yml").read_text("utf-8")
    assert "with" not in job["steps"][-1]


def test_hooks_have_the_version_that_lint_has() -> None:
    """A commit that passes here passes in CI, too."""
    (pinned,) = [tool for tool in PROJECT["dependency-groups"]["lint"] if tool.startswith("ruff")]
    (repo,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert [hook["additional_dependencies"] for hook in repo["hooks"]] == [[pinned], [pinned]]
    assert [hook["entry"].split()[:2] for hook in repo["hooks"]] == [
        ["ruff", "check"],
        ["ruff", "format"],
    ]


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.name)
def test_forms_are_complete(form: Path) -> None:
    """GitHub shows a form if it has these, and its fields have different names."""
    loaded = load(form)
    if form.name == "config.yml":
        assert all(link.keys() == {"name", "url", "about"} for link in loaded["contact_links"])
        return
    assert {"name", "description", "body"} <= loaded.keys()
    fields = [field for field in loaded["body"] if field["type"] != "markdown"]
    ids = [field["id"] for field in fields]
    assert len({*ids}) == len(ids)
    assert all(field["attributes"]["label"] for field in fields)


@pytest.mark.usefixtures("no_celery_tasks")
def test_command_that_a_form_asks_for_works(settings: Any) -> None:
    """Django refuses an unknown tag."""
    settings.DISTLOCK = {"default": settings.DISTLOCK["default"]}
    text = (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text("utf-8")
    (options,) = re.findall(r"`python manage.py check (.*)`", text)
    call_command("check", *options.split(), stdout=StringIO(), stderr=StringIO())


def test_workflows_are_all_read() -> None:
    """A file that YAML can't read would be ignored by GitHub."""
    assert {path.name for path in WORKFLOWS} == {"build.yml", "ci.yml", "publish.yml"}
    assert all(load(path) for path in GITHUB)
