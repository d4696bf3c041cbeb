"""A lock server's addresses and secrets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock.server.addresses import LONGEST_UNIX_PATH, Address, parse_address, unix_address
from django_distlock.server.secret import check_secret, read_secret
from tests.support.lock_servers import write_secret

if TYPE_CHECKING:
    from pathlib import Path

LONG = "a" * 63


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:7433", ("localhost", 7433, "")),
        ("127.0.0.1:1", ("127.0.0.1", 1, "")),
        ("locks.example.com:65535", ("locks.example.com", 65535, "")),
        ("locks.example.com.:7433", ("locks.example.com.", 7433, "")),
        (f"{LONG}.example:7433", (f"{LONG}.example", 7433, "")),
        ("[::1]:7433", ("::1", 7433, "")),
        ("[fe80::1%eth0]:7433", ("fe80::1%eth0", 7433, "")),
        ("unix:/run/locks", ("", 0, "/run/locks")),
        ("unix:/run/dürfen:7433", ("", 0, "/run/dürfen:7433")),
    ],
)
def test_address_is_parsed_and_formatted_as_written(
    text: str, address: tuple[str, int, str]
) -> None:
    """It is formatted as it was written, so that a state file keeps its name."""
    found = parse_address(text)
    assert found == address
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", 'is not "host:port"'),
        ("localhost", 'is not "host:port"'),
        ("7433", 'is not "host:port"'),
        (":7433", 'is not "host:port"'),
        ("localhost:", "the port is a number from 1 to 65535"),
        ("localhost:0", "the port is a number from 1 to 65535"),
        ("localhost:65536", "the port is a number from 1 to 65535"),
        ("localhost:-1", "the port is a number from 1 to 65535"),
        ("localhost:7_433", "the port is a number from 1 to 65535"),
        ("localhost:٧٤٣٣", "the port is a number from 1 to 65535"),
        (f"localhost:{'1' * 5000}", "the port is a number from 1 to 65535"),
        ("::1:7433", r"needs brackets, as in \[::1\]:7433"),
        ("::1", r"needs brackets, as in \[::1\]:7433"),
        ("[::1]", r"needs brackets, as in \[::1\]:7433"),
        ("[]:7433", "Address cannot be empty"),
        ("[127.0.0.1]:7433", "At least 3 parts expected"),
        ("[::g]:7433", "Only hex digits permitted"),
        ("...:7433", "can't be the name of a host"),
        ("a..b:7433", "can't be the name of a host"),
        (".a:7433", "can't be the name of a host"),
        (f"{LONG}a.example:7433", "can't be the name of a host"),
        ("lócks.example:7433", "write it in ASCII"),
        ("\udcff:7433", "write it in ASCII"),
        ("a b:7433", "can't be the name of a host"),
        ("a\0b:7433", "can't be the name of a host"),
        ("unix:", "can't be the path of a unix socket"),
        ("unix:/a\0b", "can't be the path of a unix socket"),
    ],
)
def test_invalid_address_is_refused_with_the_reason(text: str, complaint: str) -> None:
    """In one line, which has the text."""
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_address(text)
    assert repr(text.removeprefix("unix:")) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", [7433, None, b"localhost:7433", ("localhost", 7433)])
def test_address_is_a_text(other: Any) -> None:
    """Nothing else is accepted."""
    with pytest.raises(TypeError, match="an address is a text"):
        parse_address(other)


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("localhost:7433", True),
        ("127.0.0.1:7433", True),
        ("127.8.9.1:7433", True),
        ("[::1]:7433", True),
        ("unix:/run/locks", True),
        ("0.0.0.0:7433", False),
        ("[::]:7433", False),
        ("192.168.0.1:7433", False),
        ("locks.example.com:7433", False),
        ("localhost.example.com:7433", False),
    ],
)
def test_only_addresses_on_this_machine_are_local(text: str, local: bool) -> None:
    """A name other than localhost may be anywhere."""
    assert parse_address(text).is_local is local


def test_unix_socket_is_known_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is one socket, whatever the current directory."""
    monkeypatch.chdir(tmp_path)
    assert unix_address("locks") == Address("", 0, f"{tmp_path}/locks")


def test_unix_socket_has_a_path_that_the_system_takes() -> None:
    """The limit counts bytes, also those that are no UTF-8."""
    path = "/" + "ü" * (LONGEST_UNIX_PATH // 2)
    assert unix_address(path).path == path
    assert unix_address(f"{path[:-1]}\udcff\udcff").path
    with pytest.raises(ValueError, match=f"longer than the {LONGEST_UNIX_PATH} bytes"):
        unix_address(f"{path}a")


def test_secret_of_sixteen_bytes_is_taken() -> None:
    """Bytes count, not characters."""
    assert check_secret("ü" * 8) == "ü".encode() * 8
    assert check_secret(b"\xff" * 16) == b"\xff" * 16


def test_short_secret_is_refused_with_a_way_to_make_one() -> None:
    """The error has the secret's length, not the secret."""
    with pytest.raises(ValueError, match=r"has 6 bytes, but needs 16: python -c") as caught:
        check_secret("geheim")
    assert "geheim" not in str(caught.value)


def test_secret_is_a_text() -> None:
    """Nothing else is accepted, such as a path."""
    with pytest.raises(TypeError, match="secret is a text"):
        check_secret(1234567890123456)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n"])
def test_line_end_does_not_belong_to_a_secret_in_a_file(tmp_path: Path, end: bytes) -> None:
    """An editor or a shell writes one; other blanks and bytes that are no UTF-8 count."""
    write_secret(tmp_path / "secret", b" \xff\xfe correct horse " + end)
    assert read_secret(str(tmp_path / "secret")) == b" \xff\xfe correct horse "


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o622, 0o601])
def test_secret_in_a_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    """Like ssh's keys; following the error's advice helps."""
    file = write_secret(tmp_path / "a secret", b"correct horse battery staple\n")
    file.chmod(mode)
    message = rf"/a secret' has the mode {mode:04o}, so others can .*: chmod 600 '/.*/a secret'$"
    with pytest.raises(ValueError, match=message):
        read_secret(str(file))
    file.chmod(0o400)
    assert read_secret(str(file)) == b"correct horse battery staple"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who can give a file away")
@pytest.mark.parametrize(("mode", "advice"), [(0o440, ""), (0o444, "640"), (0o641, "640")])
def test_secret_in_another_users_file_may_be_given_to_a_group(
    tmp_path: Path, mode: int, advice: str
) -> None:
    """As root or systemd gives it to a service, but not to everybody."""
    file = write_secret(tmp_path / "secret", b"correct horse battery staple\n")
    file.chmod(mode)
    os.chown(file, 65_534, 65_534)
    if advice:
        with pytest.raises(ValueError, match=f": chmod {advice} /"):
            read_secret(str(file))
    else:
        assert read_secret(str(file))


def test_secret_in_a_file_must_be_long_enough_without_its_line_end(tmp_path: Path) -> None:
    """An empty line is no secret."""
    write_secret(tmp_path / "secret", b"\n" * 20)
    with pytest.raises(ValueError, match="has 0 bytes"):
        read_secret(str(tmp_path / "secret"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_secret(str(tmp_path / "nowhere"))
