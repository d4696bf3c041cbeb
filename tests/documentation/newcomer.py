"""Do what a page tells a newcomer: create its files, run its commands, type into its shell."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from contextlib import suppress
from http.cookiejar import CookieJar
from importlib.metadata import version
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from packaging.requirements import Requirement

from tests.documentation.console import compare
from tests.documentation.pages import located
from tests.support.children import run_line, tied
from tests.support.concurrency import until
from tests.support.documentation import commands

if TYPE_CHECKING:
    from pathlib import Path

FILE = re.compile(r"(?P<action>Add|Create|Replace)\b.*?`(?P<path>[\w/]+\.\w+)`")
VIRTUAL = {"python3 -m venv .venv", "source .venv/bin/activate"}
"""Commands that make and enter an environment: the tests' own, which has the packages, is used."""
STARTED = "Quit the server with CONTROL-C"
PROMPT = b">>> "
TIMES = {
    "ttl=20": "ttl=4",
    "sleep 20": "sleep 4",
    "20 seconds": "4 seconds",
    "sleep(2)": "sleep(1)",
}
"""What the page says, with what is done: it tells a person to wait, and that is no test's work."""


def in_order(lines: str) -> str:
    """Return the lines sorted."""
    return "".join(sorted(lines.splitlines(keepends=True)))


class Newcomer:
    """A person in front of an empty folder, who follows a page to the letter."""

    def __init__(self, page: Path, folder: Path, package: Path, port: int) -> None:
        text = page.read_text("utf-8").replace(":8000", f":{port}")
        for said, done in TIMES.items():
            assert said in text, said
            text = text.replace(said, done)
        self.tokens = iter(MarkdownIt().parse(text))
        self.text = text
        self.folder = folder
        self.port = port
        self.log = folder.with_suffix(".log")
        self.server: subprocess.Popen[bytes] | None = None
        self.shell = 0
        (folder.parent / ".curlrc").write_text("silent\n")  # as in a terminal
        self.environment = {
            "HOME": str(folder.parent),
            "LANG": "C.UTF-8",
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",  # noqa: PTH120
            "PYTHONPATH": str(package),
            "PYTHONUNBUFFERED": "1",  # as in a terminal
            "TERM": "dumb",
        }

    def follow(self, until_heading: str | None = None) -> None:
        """Do what the page says, up to a heading or the end."""
        said = ""
        for token in self.tokens:
            if token.type == "inline":
                said = token.content
                if said == until_heading:
                    return
            elif token.type == "fence" and token.map:
                with located(f"line {token.map[0] + 1} of the page, after: {said}"):
                    self.do(said, token.info, token.content)

    def do(self, said: str, language: str, block: str) -> None:
        """Do what one block says, after the paragraph before it."""
        if language == "console":
            for command, expected in commands(block):
                self.run(command, expected)
        elif language == "pycon":
            self.type(block)
        else:
            file = FILE.search(said)
            assert file, f"which file is it? {said}"
            self.write(file["action"], self.folder / file["path"], block)

    def run(self, command: str, expected: str) -> None:
        """Run a command in a shell of its own, and compare what it prints."""
        if command in VIRTUAL:
            return
        words = shlex.split(command)
        if words[:4] == ["python", "-m", "pip", "install"]:
            for requirement in words[4:]:
                assert version(Requirement(requirement).name)
        elif words[0] == "export":
            self.environment |= dict([words[1].split("=")])
        elif words[-1] == "runserver":
            self.serve([*words, str(self.port)])
        elif words[-1] == "shell":
            self.start_shell(words)
        else:
            done = run_line(command, self.folder, self.environment)
            printed = done.stdout
            if words[0] == "printf":  # requests at once, which may end in any order
                printed, expected = in_order(printed), in_order(expected)
            if expected.strip():
                compare(printed, expected)
            assert done.returncode == 0, done.stdout

    def write(self, action: str, path: Path, block: str) -> None:
        """Write a file; the server notices it, and restarts."""
        if action == "Add":
            block = path.read_text("utf-8") + block
        else:
            assert path.exists() == (action == "Replace"), path
        starts = self.starts()
        path.write_text(block, "utf-8")
        if self.server and path.parent != self.folder:
            until(lambda: self.starts() > starts)

    def serve(self, command: list[str]) -> None:
        """Start the server, and wait until it answers."""
        with self.log.open("wb") as output:
            self.server = subprocess.Popen(
                tied(command),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(lambda: self.starts() == 1)

    def starts(self) -> int:
        """Return how often the server has started."""
        return self.log.read_text("utf-8").count(STARTED) if self.server else 0

    def start_shell(self, command: list[str]) -> None:
        """Start an interactive Python in a terminal."""
        self.shell, self.terminal = pty.fork()
        if not self.shell:  # pragma: no cover - the child becomes another program
            os.chdir(self.folder)
            os.execvpe(command[0], command, self.environment)
        self.read()

    def type(self, block: str) -> None:
        """Type lines into the shell, and compare what it answers."""
        for part in block.removeprefix(">>> ").split("\n>>> "):
            line, _, expected = part.partition("\n")
            os.write(self.terminal, f"{line}\n".encode())
            compare(self.read().partition("\n")[2], expected)

    def read(self) -> str:
        """Return what the shell prints up to its next prompt, or its end."""
        printed = b""
        with suppress(OSError):  # it has ended
            while not printed.endswith(PROMPT):
                printed += os.read(self.terminal, 4096)
        return printed.removesuffix(PROMPT).decode().replace("\r\n", "\n")

    def open_in_browser(self) -> str:
        """Open the address that the page gives, log in as it says, and return what is shown."""
        [address] = re.findall(r"<(http://\S+/admin/\S+)>", self.text)
        [(user, password)] = re.findall(r"log in as `(\w+)` with the\s+password `(\w+)`", self.text)
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        form = opener.open(address).read().decode()
        [token] = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
        fields = {"csrfmiddlewaretoken": token, "username": user, "password": password}
        path = urllib.parse.urlsplit(address).path
        login = urllib.parse.urljoin(address, f"/admin/login/?next={path}")
        answer = opener.open(login, urllib.parse.urlencode(fields).encode())
        assert answer.url == address
        return str(answer.read().decode())

    def leave(self) -> None:
        """Close the terminals."""
        if self.shell:  # pragma: no branch
            with suppress(ProcessLookupError):
                os.kill(self.shell, signal.SIGKILL)
            os.close(self.terminal)
            os.waitpid(self.shell, 0)
        if self.server:  # pragma: no branch
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()
