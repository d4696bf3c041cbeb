"""Which texts may be semaphores, and prefixes of semaphores."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_distlock.semaphores.validation import InvalidSemaphore, first_after, validate_semaphore

# Validation


@pytest.mark.parametrize(
    "semaphore", ["1", "1234collectPayment", "a b ", " ", "é", "\U0001f512", "\u00a0", "x" * 255]
)
def test_valid_semaphore_is_returned_unchanged(semaphore: str) -> None:
    """Nothing is stripped, folded or cut."""
    assert validate_semaphore(semaphore) == semaphore


def test_length_counts_characters_not_bytes() -> None:
    """255 characters of four bytes each are as good as 255 letters."""
    longest = "\U0001f512" * 255
    assert validate_semaphore(longest) == longest
    with pytest.raises(InvalidSemaphore, match="at most 255 characters, this one has 256"):
        validate_semaphore(longest + "a")


def test_empty_semaphore_is_refused() -> None:
    """A lock without a name is a mistake."""
    with pytest.raises(InvalidSemaphore, match="can't be empty"):
        validate_semaphore("")


def test_message_about_a_long_semaphore_shows_its_beginning_only() -> None:
    """A log line must not be as long as a text that somebody sent."""
    with pytest.raises(InvalidSemaphore) as caught:
        validate_semaphore("begin" + "x" * 100_000)
    assert "'begin" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "character", ["\x00", "\x01", "\t", "\n", "\x1f", "\x7f", "\x80", "\x9f", "\ud800", chr(0xDFFF)]
)
def test_control_characters_and_lone_surrogates_are_refused(character: str) -> None:
    """Not every store can keep them, wherever in the text they are."""
    for semaphore in (character, f"{character}b", f"a{character}", f"a{character}b"):
        with pytest.raises(InvalidSemaphore, match="no control characters or lone surrogates"):
            validate_semaphore(semaphore)


@pytest.mark.parametrize("character", ["\x20", "\x7e", "\xa0", "\ud7ff", "\ue000"])
def test_neighbours_of_refused_characters_are_allowed(character: str) -> None:
    """Exactly those characters are refused."""
    assert validate_semaphore(character) == character


@pytest.mark.parametrize("semaphore", [None, 1, b"a", ["a"], UUID(int=1)])
def test_semaphore_of_another_type_is_a_type_error(semaphore: Any) -> None:
    """A semaphore isn't made of other types by str()."""
    with pytest.raises(TypeError, match=f"is a str, not {type(semaphore).__name__}"):
        validate_semaphore(semaphore)


def test_invalid_semaphore_is_a_value_error() -> None:
    """`except ValueError` catches it."""
    assert issubclass(InvalidSemaphore, ValueError)


# Prefixes


@pytest.mark.parametrize(
    ("prefix", "following"),
    [
        ("a", "b"),
        ("ab", "ac"),
        ("a%", "a&"),
        ("\ud7ff", "\ue000"),
        ("a\U0010ffff", "b"),
        ("a\U0010ffff\U0010ffff", "b"),
        ("", ""),
        ("\U0010ffff", ""),
    ],
)
def test_first_text_after_a_prefix(prefix: str, following: str) -> None:
    """The last character's successor; surrogates are no characters; empty if there is none."""
    assert first_after(prefix) == following


# Few characters, those at the ends of ranges among them: texts often have common beginnings.
edges = st.text("ab\x00\x7f\ud7ff\ue000\uffff\U00010000\U0010ffff", max_size=4)


prefixes = edges | st.text(max_size=4)


@pytest.mark.once
@given(prefix=prefixes, text=prefixes | edges, extend=st.booleans())
@settings(deadline=None)
def test_prefix_is_the_range_up_to_what_comes_first_after_it(
    prefix: str, text: str, extend: bool
) -> None:
    """A text begins with p exactly if p <= text < first_after(p), by code points."""
    text = prefix + text if extend else text
    end = first_after(prefix)
    in_range = prefix <= text and (not end or text < end)
    assert text.startswith(prefix) is in_range
