"""Different values make different semaphores, and can be parsed out of them."""

from __future__ import annotations

from string import ascii_letters, digits
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_distlock.semaphores.templates import SemaphoreTemplate
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.support.templates import IDENTITY, render


@pytest.mark.parametrize(
    ("template", "semaphore", "texts"),
    [
        ("<int:a>x", "7x", ["7"]),
        ("<int:a>x", "-7x", ["-7"]),
        ("<int:a>x", "07x", None),
        ("<int:a>x", "x", None),
        ("<int:a>x", "sevenx", None),
        ("<uuid:a>x", f"{IDENTITY}x", [str(IDENTITY)]),
        ("<uuid:a>x", f"{IDENTITY.hex}x", None),
        ("<slug:a>:<str:b>", "a:%20", ["a", " "]),
        ("<slug:a>:<str:b>", "a.b:%20", None),
        ("<a>:", "%2f:", None),
        ("<a>:", "%FF:", None),
    ],
)
def test_parsed_values_make_the_same_semaphore(
    template: str, semaphore: str, texts: list[str] | None
) -> None:
    """Another spelling is no semaphore of the template."""
    assert SemaphoreTemplate(template).read(semaphore) == texts


@pytest.mark.once
@given(st.integers())
@settings(deadline=None)
def test_spellings_of_an_integer_are_one_semaphore_or_none(number: int) -> None:
    """Spellings that int() accepts."""
    template = SemaphoreTemplate("<int:a>")
    for spelling in (f"{number}", f"{number:+}", f"{number:010}", f" {number}", f"{number:_}"):
        assert int(spelling) == number
        try:
            made = template.fill([spelling])
        except InvalidSemaphore:
            assert spelling != str(number)
        else:
            assert made == template.fill([number])


# Injectivity

literals = st.text(":/%s3A-é x", max_size=4)


separators = st.tuples(literals, st.sampled_from(":/|é ,"), literals).map("".join)


values = st.text(":/|%23Aa-é", max_size=4) | st.text()


@st.composite
def renderings(draw: st.DrawFn) -> tuple[SemaphoreTemplate, list[str], list[str]]:
    """Draw a template of one to three placeholders, and two calls' values for it."""
    number = draw(st.integers(1, 3))
    text = draw(literals)
    for index in range(number):
        text += f"<v{index}>" + draw(literals if index == number - 1 else separators)
    calls = st.lists(values, min_size=number, max_size=number)
    return SemaphoreTemplate(text), draw(calls), draw(calls)


def rendered(template: SemaphoreTemplate, call: list[str]) -> str:
    return template.render({f"v{index}": value for index, value in enumerate(call)})


@pytest.mark.once
@given(renderings())
@settings(deadline=None, max_examples=300)
@example((SemaphoreTemplate("<v0>:<v1>"), ["1:", "2"], ["1", ":2"]))
@example((SemaphoreTemplate("<v0>%3A:<v1>"), ["%3A", ""], ["", "%3A"]))
@example((SemaphoreTemplate("<v0>a/a<v1>"), ["a", ""], ["", "a"]))
def test_different_values_give_different_semaphores(
    rendering: tuple[SemaphoreTemplate, list[str], list[str]],
) -> None:
    """Two calls share a lock exactly if their values are the same."""
    template, one, other = rendering
    assert (rendered(template, one) == rendered(template, other)) is (one == other)


@pytest.mark.once
@given(values)
@settings(deadline=None)
def test_rendered_value_has_unreserved_characters_and_percent_signs_only(value: str) -> None:
    """So an accepted separator can't come from a value."""
    assert set(render("<v>", v=value)) <= {*ascii_letters, *digits, *"-._~%"}


@pytest.mark.once
@given(literals)
@settings(deadline=None)
def test_separator_is_accepted_only_if_it_has_a_character_that_no_value_has(text: str) -> None:
    """Whatever stands between two placeholders."""
    separates = not set(text) <= set("%s3A-x")
    try:
        SemaphoreTemplate(f"<a>{text}<b>")
    except ValueError:
        assert not separates
    else:
        assert separates


def test_template_is_filled_with_an_instances_attributes() -> None:
    """Dotted names follow them."""
    invoice = SimpleNamespace(pk=7, customer=SimpleNamespace(name="Ada/L"))
    template = SemaphoreTemplate("<pk>:<customer.name>")
    assert template.render_for(invoice) == "7:Ada%2FL"


@pytest.mark.once
@given(st.text(), st.text())
@settings(deadline=None)
def test_texts_can_be_parsed_out_of_their_semaphores(first: str, second: str) -> None:
    """Even where separator and encoding share characters."""
    template = SemaphoreTemplate("a%<one>.:.<two>%41")
    assert template.read(template.fill([first, second])) == [first, second]


@pytest.mark.parametrize("semaphore", ["1234", "1234collectPayments", "1:2collectPayment"])
def test_semaphore_of_another_template_is_not_parsed(semaphore: str) -> None:
    """None, not an error: another template may have made it."""
    assert SemaphoreTemplate("<customer_id>collectPayment").read(semaphore) is None
