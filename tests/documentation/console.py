"""Run the commands of `console` blocks, and compare what they print with what the page shows."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from contextlib import redirect_stderr, redirect_stdout
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from typing import TYPE_CHECKING, Any
from unittest import mock

from django.core.management import ManagementUtility
from django.test import Client, override_settings
from packaging.requirements import Requirement

from tests.documentation.elsewhere import NOT_RUN
from tests.support.commands import Terminal
from tests.support.documentation import commands
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from sybil import Example

MANAGE = re.compile(r"(?:python3? |\./|/)manage\.py +([^|;&<>\n`]+)")
"""A call of a management command, up to the end of the shell's simple command."""
REDIRECTION = re.compile(r" \d?>(&\d| ?[\w./]+)")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
CHANGING = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d|\b\d+s\b")
"""What differs from run to run: moments, and seconds."""
ANSWER = re.compile(r"^(.*\[y/N\] )(\w+)$", re.MULTILINE)
"""A question of a command, and what the reader types."""


def run_console(example: Example) -> None:
    """Run the lines after `$ `, and compare what they print with the lines below them."""
    status, found = 0, commands(example.parsed)
    for number, (command, expected) in enumerate(found, 1):
        check_shell(command)
        words = shlex.split(command, comments=True)
        if command in NOT_RUN or (words and words[0] in NOT_RUN):
            continue
        if words == ["echo", "$?"]:
            compare(f"{status}\n", expected)
            continue
        typed = "".join(f"{answer}\n" for _, answer in ANSWER.findall(expected))
        with mock.patch.object(sys, "stdin", Terminal(typed) if typed else sys.stdin):
            output, status = run_command(words, example.namespace)
        if expected.strip():
            compare(output, ANSWER.sub(r"\1", expected))
        elif ("echo $?", f"{status}\n") not in found[number:]:
            assert not status, f"exit code {status}, which the page doesn't show:\n{output}"


def run_command(words: list[str], namespace: dict[str, Any]) -> tuple[str, int]:
    """Run a command line in this process; return what a person sees, and its exit code."""
    if "|" in words:
        pipe = words.index("|")
        return piped(run_command(words[:pipe], namespace)[0], words[pipe + 1 :])
    assignments = []
    while words and ASSIGNMENT.match(words[0]):
        assignments.append(words.pop(0))
    with mock.patch.dict(os.environ, dict(one.split("=", 1) for one in assignments)):
        match words:
            case ["python" | "python3" | "./manage.py", *_] if "manage.py" in words[0] + words[1]:
                return manage(*words[words[0].startswith("python") + 1 :])
            case ["curl", *arguments]:
                return curl(arguments, namespace), 0
            case ["pip", "install", *requirements] | [
                "python" | "python3",
                "-m",
                "pip",
                "install",
                *requirements,
            ]:
                return check_requirements(requirements), 0
            case ["tox", "run", "-e", "benchmark", "--", name, *_]:
                assert find_spec(f"benchmarks.{name}"), f"there is no benchmark {name!r}"
                return check_environment("benchmark"), 0
            case ["tox", "run", "-e", "faults" | "simulation" as name, "--", *arguments]:
                check_arguments(f"tests.{name}", arguments)
                return check_environment(name), 0
            case ["python", "-m", module, *arguments] if module.startswith("tests."):
                return check_arguments(module, arguments), 0
            case ["tox", "run", "-e", environment, *_] | ["tox", "-e", environment, *_]:
                return check_environment(environment), 0
    raise AssertionError(
        f"no test runs `{shlex.join(words)}`: list it in NOT_RUN of tests/documentation/"
        "elsewhere.py, with the reason"
    )


def piped(output: str, words: list[str]) -> tuple[str, int]:
    """Run a program that reads the output of another one."""
    done = subprocess.run(
        words, input=output, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr, done.returncode


def manage(name: str, *arguments: str) -> tuple[str, int]:
    """Run a management command as a shell would; return what it prints, and its exit code."""
    output, status = StringIO(), 0
    with redirect_stdout(output), redirect_stderr(output):
        command = ManagementUtility(["manage.py", name]).fetch_command(name)
        # The tests' own site isn't what the page is about.
        unchecked = ["--skip-checks"] if command.requires_system_checks else []
        try:
            command.run_from_argv(["manage.py", name, *unchecked, *arguments])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            output.write(f"{end.code}\n" if isinstance(end.code, str) else "")
    return output.getvalue(), status


def curl(arguments: list[str], namespace: dict[str, Any]) -> str:
    """Request a view from the page's `urlpatterns`, or the tests' site; return the answer."""
    parser = argparse.ArgumentParser("curl", exit_on_error=False, allow_abbrev=False)
    parser.add_argument("-X", "--request")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data")
    parser.add_argument("-i", "--include", action="store_true")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("url", type=lambda url: re.sub(r"^(https?://)?[^/]*", "", url))
    options = parser.parse_args([*map(spread, arguments)])
    method = options.request or ("POST" if options.data else "GET")
    headers = dict(header.split(": ", 1) for header in options.header)
    urls = namespace["__name__"] if "urlpatterns" in namespace else "tests.app.urls"
    with override_settings(ROOT_URLCONF=urls):
        answer = Client(raise_request_exception=False).generic(
            method,
            options.url or "/",
            options.data or "",
            headers=headers,
        )
    shown = answer.text
    if options.include:
        fields = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
        shown = f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}\n{fields}\n{shown}"
    return shown


def spread(argument: str) -> str:
    """Return curl's `-si` as one letter, since `-s` changes nothing here."""
    return "-i" if argument in {"-si", "-is"} else argument


def check_requirements(requirements: list[str]) -> str:
    """Fail unless this package has the extras that these requirements name."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in map(Requirement, (one for one in requirements if one[0] != "-")):
        if requirement.name == "django-distlock":
            unknown = requirement.extras - set(extras["optional-dependencies"])
            assert not unknown, f"pyproject.toml has no extra {unknown}"
    return ""


def check_arguments(module: str, arguments: list[str]) -> str:
    """Fail unless a program of the tests takes these arguments."""
    with mock.patch.object(sys, "argv", [module, *arguments]):
        import_module(f"{module}.__main__").parse_arguments()
    return ""


def check_environment(names: str) -> str:
    """Fail unless tox.ini has these environments."""
    tox = ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    known = {section.removeprefix("testenv:") for section in tox.sections()}
    for name in names.split(","):
        assert name in known or re.fullmatch(r"py3\d+-django\d+", name), f"tox.ini lacks {name}"
    return ""


def check_shell(script: str) -> None:
    """Fail unless a shell can read the script, and management commands know their options."""
    done = subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{script}\n{done.stderr}"
    check_options(script)


def check_options(text: str) -> None:
    """Fail unless each management command in a text exists and takes the options given to it."""
    for call in MANAGE.findall(REDIRECTION.sub("", text.replace("\\\n", ""))):
        words = split_call(call)
        with redirect_stderr(StringIO()) as complaint:
            try:
                command = ManagementUtility(["manage.py"]).fetch_command(words[0])
                command.create_parser("manage.py", words[0]).parse_args(words[1:])
            except SystemExit as end:
                if end.code:
                    message = f"manage.py {shlex.join(words)}:\n{complaint.getvalue()}"
                    raise AssertionError(message) from end


def split_call(call: str) -> list[str]:
    """Return the words of a call, without a quote that ends what it stands in."""
    try:
        return shlex.split(call, comments=True)
    except ValueError:
        return shlex.split(call.strip("\"'"), comments=True)


def compare(output: str, expected: str) -> None:
    """Fail unless the output is as expected, where `...` stands for anything. See CHANGING."""
    options = ELLIPSIS | NORMALIZE_WHITESPACE
    wanted, seen = (CHANGING.sub("<time>", text) for text in (expected, output))
    if not OutputChecker().check_output(wanted, seen, options):
        raise AssertionError(f"the page shows:\n{expected}\nbut it prints:\n{output}")
