"""What a semaphore may be, and how a template makes one of a call's arguments."""

from __future__ import annotations

import functools
import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from string import ascii_letters, digits
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import models
from django.utils.decorators import method_decorator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_distlock import distributed_lock
from django_distlock.semaphores.signatures import bind_arguments, call_signature
from django_distlock.semaphores.templates import SemaphoreTemplate
from django_distlock.semaphores.validation import InvalidSemaphore, first_after, validate_semaphore

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable


class Currency(models.TextChoices):
    EURO = "€"


class Priority(models.IntegerChoices):
    HIGH = 1


class Colour(StrEnum):
    RED = "dark red"


class Level(IntEnum):
    TOP = 7


class Plain(Enum):
    ONE = 1


class Shouting(str):
    """A str whose text, by str(), is another than its value."""

    __slots__ = ()

    def __str__(self) -> str:
        return "SHOUTED"


def collect(customer_id: int, *, invoice: str = "first") -> None:
    """Stand for a function that takes one argument either way, and one by name."""


def anything(*args: Any, **kwargs: Any) -> None:
    """Stand for a function that takes whatever it gets."""


def render(text: str, **arguments: object) -> str:
    return SemaphoreTemplate(text).render(arguments)


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
    """A log line must not be as long as what somebody sent."""
    with pytest.raises(InvalidSemaphore) as caught:
        validate_semaphore("begin" + "x" * 100_000)
    assert "'begin" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "character", ["\x00", "\x01", "\t", "\n", "\x1f", "\x7f", "\x80", "\x9f", "\ud800", chr(0xDFFF)]
)
def test_control_characters_and_lone_surrogates_are_refused(character: str) -> None:
    """Not every store can keep them, wherever in the text they stand."""
    for semaphore in (character, f"{character}b", f"a{character}", f"a{character}b"):
        with pytest.raises(InvalidSemaphore, match="no control characters or lone surrogates"):
            validate_semaphore(semaphore)


@pytest.mark.parametrize("character", ["\x20", "\x7e", "\xa0", "\ud7ff", "\ue000"])
def test_neighbours_of_refused_characters_are_allowed(character: str) -> None:
    """What is refused is exactly that, and no more."""
    assert validate_semaphore(character) == character


@pytest.mark.parametrize("semaphore", [None, 1, b"a", ["a"], UUID(int=1)])
def test_semaphore_that_is_no_str_is_a_type_error(semaphore: Any) -> None:
    """A semaphore isn't made of other types by str()."""
    with pytest.raises(TypeError, match=f"is a str, not {type(semaphore).__name__}"):
        validate_semaphore(semaphore)


def test_invalid_semaphore_is_a_value_error() -> None:
    """Who catches ValueError catches it."""
    assert issubclass(InvalidSemaphore, ValueError)


# Templates


def test_customer_id_and_text_are_exactly_joined() -> None:
    """The semaphore of the documentation's first example."""
    name = SemaphoreTemplate("<customer_id>collectPayment").for_calls_of(collect)
    assert name(1234) == "1234collectPayment"


def test_positional_and_keyword_calls_give_the_same_semaphore() -> None:
    """How an argument is passed makes no other lock."""
    name = SemaphoreTemplate("<customer_id>:<invoice>").for_calls_of(collect)
    assert name(1, invoice="a") == name(customer_id=1, invoice="a") == "1:a"


def test_default_of_an_argument_is_its_value() -> None:
    """An argument that the call leaves out has its default."""
    name = SemaphoreTemplate("<customer_id>:<invoice>").for_calls_of(collect)
    assert name(1) == "1:first"


def test_members_of_kwargs_are_arguments() -> None:
    """A view that takes **kwargs gets the URL's arguments there."""
    name = SemaphoreTemplate("pay:<pk>").for_calls_of(anything)
    assert name(pk=5) == "pay:5"


def test_call_without_a_member_of_kwargs_is_refused() -> None:
    """What only **kwargs could have had, and hasn't, is an error of the call."""
    name = SemaphoreTemplate("pay:<pk>").for_calls_of(anything)
    with pytest.raises(ValueError, match="this call has no argument 'pk'"):
        name(key=5)


def test_dotted_name_follows_attributes() -> None:
    """<request.user.pk> is the primary key of the request's user."""

    def view(request: Any) -> None: ...

    name = SemaphoreTemplate("<request.user.pk>:export").for_calls_of(view)
    request = SimpleNamespace(user=SimpleNamespace(pk=17))
    assert name(request) == "17:export"


def test_missing_attribute_is_an_attribute_error() -> None:
    """Python's own words, and where it was looked for."""
    with pytest.raises(AttributeError, match=r"<customer\.colour> can't be read: .*colour"):
        render("<customer.colour>", customer=SimpleNamespace())


def test_argument_that_occurs_twice_is_filled_in_twice() -> None:
    """Two placeholders may have the same name."""
    assert render("<a>/<a>", a=1) == "1/1"


def test_template_without_placeholders_is_the_semaphore() -> None:
    """Every call of the function then has one lock."""
    assert SemaphoreTemplate("nightly report").for_calls_of(collect)(1) == "nightly report"


@pytest.mark.parametrize("text", ["", "x" * 256, "a\nb", "\ud800"])
def test_template_without_placeholders_is_validated_at_once(text: str) -> None:
    """What no call can make valid is refused when the template is made."""
    with pytest.raises(InvalidSemaphore):
        SemaphoreTemplate(text)


@pytest.mark.parametrize("text", ["<a>" + "x" * 256, "<a>\n", "\x7f<a>", "<a>\ud800", "\0<a>:<b>"])
def test_template_that_no_value_makes_valid_is_refused_at_once(text: str) -> None:
    """What stands beside the placeholders stays in every semaphore."""
    with pytest.raises(InvalidSemaphore):
        SemaphoreTemplate(text)


@pytest.mark.parametrize("literal", ["%", "%s", "%%", "%(a)s", "{a}", "{}", "\\1", "$a"])
def test_literal_text_is_kept_as_it_is(literal: str) -> None:
    """No formatting language but <name> is understood."""
    assert render(f"{literal}<a>{literal}", a=1) == f"{literal}1{literal}"


def test_name_that_the_callable_cannot_have_is_refused_at_decoration() -> None:
    """A typing error shows at import, and says what there is."""
    expected = "no argument 'costumer_id' for <costumer_id>; it has: customer_id, invoice"
    with pytest.raises(ValueError, match=expected):
        distributed_lock("<costumer_id>collectPayment")(collect)


def test_root_of_a_dotted_name_is_what_the_callable_must_have() -> None:
    """Attributes are known at the call only, the argument before."""
    with pytest.raises(ValueError, match=r"no argument 'request' for <request\.user\.pk>"):
        SemaphoreTemplate("<request.user.pk>").for_calls_of(collect)


def test_further_positional_arguments_are_none_to_name() -> None:
    """A tuple has no text; what is passed by keyword has a name."""

    def collect_all(first: int, *others: int) -> None: ...

    def collect_any(*args: int, **kwargs: int) -> None: ...

    with pytest.raises(ValueError, match="no argument 'others' for <others>; it has: first"):
        SemaphoreTemplate("<others>").for_calls_of(collect_all)
    assert SemaphoreTemplate("<args>").for_calls_of(collect_any)(args=1) == "1"


def test_callable_without_arguments_has_none_to_name() -> None:
    """The message stays readable when there is nothing to list."""

    def nightly() -> None: ...

    with pytest.raises(ValueError, match="it has: none"):
        SemaphoreTemplate("<a>").for_calls_of(nightly)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", " a", "a ", "1", "a-b", "a.", ".a", "a..b", "a()"]
)
def test_placeholder_that_is_no_name_is_refused(name: str) -> None:
    """Between < and > stands an argument, or an attribute of it."""
    with pytest.raises(ValueError, match="is not the name of an argument or of its attribute"):
        SemaphoreTemplate(f"<{name}>:x")


@pytest.mark.parametrize("text", ["<", ">", "<a", "a>", "<<a>>", "<a>>", "<a<b>", "><", "a < b"])
def test_stray_angle_bracket_is_refused(text: str) -> None:
    """A half-written placeholder is not taken for text."""
    with pytest.raises(ValueError, match="only stand around the name of an argument"):
        SemaphoreTemplate(text)


@pytest.mark.parametrize(
    "separator", ["", "a", "7", "-", ".", "_", "~", "%", "%3A", "collect", "-to-"]
)
def test_separator_that_a_value_could_contain_is_refused(separator: str) -> None:
    """("1", "23") and ("12", "3") must not have one lock."""
    with pytest.raises(ValueError, match="two different calls could get one lock"):
        SemaphoreTemplate(f"<a>{separator}<b>")


def test_each_separator_has_to_separate() -> None:
    """One good separator doesn't make up for a bad one."""
    with pytest.raises(ValueError, match="two different calls could get one lock"):
        SemaphoreTemplate("<a>:<b>-<c>")


@pytest.mark.parametrize("separator", [":", "/", "|", " ", "é", "+", ",", "-:-", "a/b"])
def test_separator_that_no_value_can_contain_is_accepted(separator: str) -> None:
    """One such character is enough, and is kept."""
    assert render(f"<a>{separator}<b>", a=1, b=2) == f"1{separator}2"


def test_ambiguous_template_is_refused_at_decoration() -> None:
    """Not at the first call."""
    with pytest.raises(ValueError, match="'<customer_id><invoice>'"):
        distributed_lock("<customer_id><invoice>")(collect)


# Values


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("abc", "abc"),
        ("", ""),
        (0, "0"),
        (-12, "-12"),
        (10**30, "1" + "0" * 30),
        (UUID("12345678-1234-5678-1234-567812345678"), "12345678-1234-5678-1234-567812345678"),
        (date(2026, 2, 3), "2026-02-03"),
        (datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=UTC), "2026-02-03T04%3A05%3A06.000007%2B00%3A00"),
        (Currency.EURO, "%E2%82%AC"),
        (Colour.RED, "dark%20red"),
        (Priority.HIGH, "1"),
        (Level.TOP, "7"),
    ],
)
def test_value_has_its_text(value: object, text: str) -> None:
    """Strings, numbers, ids, dates and enumerations of these stand for themselves."""
    assert render("<a>|", a=value) == f"{text}|"


def test_str_counts_by_its_value() -> None:
    """Whatever a subclass says when it is shown."""
    value = Shouting("quiet")
    assert str(value) == "SHOUTED"
    assert render("<a>", a=value) == "quiet"


def test_date_and_midnight_differ() -> None:
    """A day and the moment that it begins at are two things."""
    day, midnight = date(2026, 2, 3), datetime(2026, 2, 3, tzinfo=UTC)
    assert render("<a>", a=day) != render("<a>", a=midnight)


def test_moment_is_one_lock_in_every_time_zone() -> None:
    """Aware datetimes that are equal have one text; a naive one says nothing of its zone."""
    moment = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert elsewhere == moment
    assert render("<a>", a=elsewhere) == render("<a>", a=moment)
    assert render("<a>", a=moment.replace(tzinfo=None)) == "2026-02-03T04%3A05%3A00"
    assert render("<a>", a=datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("AZaz09-._~", "AZaz09-._~"),
        ("a b", "a%20b"),
        ("a/b:c|d", "a%2Fb%3Ac%7Cd"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("a+b", "a%2Bb"),
        ("<a>", "%3Ca%3E"),
        ("ä", "%C3%A4"),
        ("a\u0308", "a%CC%88"),
        ("\x00\n", "%00%0A"),
        ("\U0001f512", "%F0%9F%94%92"),
    ],
)
def test_value_is_percent_encoded_but_for_unreserved_characters(value: str, text: str) -> None:
    """RFC 3986's unreserved characters stay, every other byte of UTF-8 is %XX."""
    assert render("<a>", a=value) == text


def test_lone_surrogate_in_a_value_is_an_invalid_semaphore() -> None:
    """It has no UTF-8, so a locked view answers 400 and not 500."""
    with pytest.raises(InvalidSemaphore, match="but must be without lone surrogates"):
        render("<a>", a="a\ud800")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        1.0,
        Decimal(1),
        b"a",
        time(1),
        ("a",),
        {"a": 1},
        Plain.ONE,
        object(),
        User(pk=1, username="anna"),
    ],
)
def test_value_of_another_type_is_a_type_error_that_suggests_the_pk(value: object) -> None:
    """Two objects may share a text, so that str() is not asked for it."""
    with pytest.raises(TypeError, match=r"For a model instance write <customer\.pk>"):
        render("<customer>", customer=value)


def test_primary_key_of_a_model_instance_is_a_value() -> None:
    """What the message suggests does work."""
    assert render("<customer.pk>:x", customer=User(pk=12)) == "12:x"


def test_unsaved_model_instance_has_no_value() -> None:
    """All unsaved instances would share one lock."""
    with pytest.raises(TypeError, match=r"<customer\.pk> is None"):
        render("<customer.pk>:x", customer=User())


SECRET = "sessionid=4f1c"


class Shown:
    """What shows more of itself than a log should have."""

    def __repr__(self) -> str:
        raise NotImplementedError


@pytest.mark.parametrize("placeholder", ["<{}>", "<int:{}>", "<uuid:{}>", "<slug:{}>", "<str:{}>"])
@pytest.mark.parametrize("name", ["meta", "request.META"])
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"HTTP_COOKIE": SECRET}, "is of type dict"),
        ([SECRET], "is of type list"),
        (SECRET.encode(), "is of type bytes"),
        (Shown(), "is of type Shown"),
    ],
)
def test_message_names_the_type_of_a_value_that_is_no_text(
    placeholder: str, name: str, value: object, kind: str
) -> None:
    """It goes into logs, and cookies don't."""
    template = SemaphoreTemplate(placeholder.format(name))
    with pytest.raises(TypeError, match=kind) as caught:
        template.fill([value])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("placeholder", "value"),
    [
        ("<int:{}>", SECRET),
        ("<uuid:{}>", SECRET),
        ("<slug:{}>", SECRET),
        ("<{}>", SECRET + chr(0xD800)),
        ("<str:{}>", SECRET + chr(0xD800)),
    ],
)
def test_message_shows_a_text_only_if_it_is_an_argument(placeholder: str, value: str) -> None:
    """As one of a URL. An attribute may be that of a session: it is told how long it is."""
    with pytest.raises(InvalidSemaphore, match=SECRET):
        SemaphoreTemplate(placeholder.format("customer")).fill([value])
    template = SemaphoreTemplate(placeholder.format("request.session.key"))
    with pytest.raises(InvalidSemaphore, match=f"is a text of {len(value)} characters") as caught:
        template.fill([value])
    assert SECRET not in str(caught.value)


# Typed placeholders

FULLWIDTH_ZERO = "\uff10"
IDENTITY = UUID("12345678-9abc-def0-1234-56789abcdef0")


@pytest.mark.parametrize(
    ("placeholder", "text", "values"),
    [
        ("<int:a>", "7", [7, Level.TOP, "7", "007", Shouting("07"), "0" * 10_000 + "7"]),
        ("<int:a>", "-7", [-7, "-7", "-07"]),
        ("<int:a>", "0", [0, "0", "000", "-0"]),
        ("<int:a>", "70", [70, "70", "070"]),
        ("<uuid:a>", str(IDENTITY), [IDENTITY, str(IDENTITY).upper(), IDENTITY.hex, IDENTITY.urn]),
        ("<uuid:a>", f"{UUID(int=0)}", [UUID(int=0), f"{{{UUID(int=0)}}}", FULLWIDTH_ZERO * 32]),
        ("<slug:a>", "a-B_9", ["a-B_9", Shouting("a-B_9")]),
        ("<str:a>", "07%20a", ["07 a"]),
        ("<str:a>", "7", [7, "7"]),
        ("<str:a>", str(IDENTITY), [IDENTITY]),
    ],
)
def test_typed_placeholder_makes_one_text_of_each_spelling(
    placeholder: str, text: str, values: list[object]
) -> None:
    """That which the value has itself."""
    template = SemaphoreTemplate(f"{placeholder}|")
    for value in values:
        assert template.fill([value]) == template.render({"a": value}) == f"{text}|"
    assert template.names == ["a"]


@pytest.mark.parametrize(
    ("placeholder", "texts"),
    [
        (
            "<int:a>",
            [
                "",
                " 7",
                "7 ",
                "7\n",
                "+7",
                "0_7",
                FULLWIDTH_ZERO,
                "\u0667",
                "0x7",
                "7.0",
                "-",
                "--7",
                "a",
            ],
        ),
        ("<uuid:a>", ["", "7", "g" * 32, f"{IDENTITY}0", f"-{IDENTITY.hex[1:]}"]),
        ("<slug:a>", ["", "a b", "a/b", "é", "a.b", "a\n", "a%"]),
    ],
)
def test_typed_placeholder_refuses_other_texts(placeholder: str, texts: list[str]) -> None:
    """A locked view answers 400."""
    for text in texts:
        with pytest.raises(InvalidSemaphore, match=f"{placeholder} is .*, but must be "):
            SemaphoreTemplate(placeholder).fill([text])


@pytest.mark.parametrize("placeholder", ["<int:a>", "<a>"])
def test_message_about_a_long_value_shows_its_beginning_only(placeholder: str) -> None:
    """As one about a long semaphore."""
    with pytest.raises(InvalidSemaphore) as caught:
        SemaphoreTemplate(placeholder).fill(["x" * 100_000 + chr(0xD800)])
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("placeholder", "values"),
    [
        ("<int:a>", [None, True, 7.0, Decimal(7), IDENTITY, b"7", User(pk=7)]),
        ("<uuid:a>", [None, 7, IDENTITY.bytes, User(pk=7)]),
        ("<slug:a>", [None, 7, IDENTITY, b"a"]),
        ("<str:a>", [None, True, 7.0, b"a", User(pk=7)]),
    ],
)
def test_typed_placeholder_takes_no_other_types(placeholder: str, values: list[object]) -> None:
    """A mistake of the site's, not of the client's."""
    hint = re.escape(placeholder.replace(":a", ":a.pk"))
    for value in values:
        with pytest.raises(
            TypeError, match=f"{placeholder} is .*For a model instance write {hint}"
        ):
            SemaphoreTemplate(placeholder).fill([value])


def test_typed_placeholder_follows_attributes() -> None:
    """And several may have different types."""

    def view(request: Any, name: str) -> None: ...

    name = SemaphoreTemplate("<int:request.user.pk>:<slug:name>").for_calls_of(view)
    request = SimpleNamespace(user=SimpleNamespace(pk="017"))
    assert name(request, "a-b") == "17:a-b"


@pytest.mark.parametrize("converter", ["integer", "INT", "path", "int ", "", "int:str"])
def test_unknown_converter_is_refused_with_those_that_there_are(converter: str) -> None:
    """When the function is decorated."""
    expected = re.escape(f"no converter {converter!r} for <{converter}:customer_id>; ")
    with pytest.raises(ValueError, match=f"{expected}there are: int, slug, str, uuid"):
        distributed_lock(f"<{converter}:customer_id>:x")(collect)


def test_name_of_a_typed_placeholder_is_looked_for_in_the_signature() -> None:
    """As that of any other."""
    with pytest.raises(ValueError, match="no argument 'costumer_id' for <int:costumer_id>; it has"):
        distributed_lock("<int:costumer_id>:x")(collect)


def test_block_has_no_arguments_for_typed_placeholders() -> None:
    """As for others."""
    with pytest.raises(TypeError, match="a decorated call"), distributed_lock("<int:a>"):
        raise NotImplementedError


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
def test_what_is_read_is_what_makes_the_semaphore(
    template: str, semaphore: str, texts: list[str] | None
) -> None:
    """Another spelling is no semaphore of the template's."""
    assert SemaphoreTemplate(template).read(semaphore) == texts


@pytest.mark.once
@given(st.integers())
@settings(deadline=None)
def test_spellings_of_an_integer_are_one_semaphore_or_none(number: int) -> None:
    """Of those that int() takes."""
    template = SemaphoreTemplate("<int:a>")
    for spelling in (f"{number}", f"{number:+}", f"{number:010}", f" {number}", f"{number:_}"):
        assert int(spelling) == number
        try:
            made = template.fill([spelling])
        except InvalidSemaphore:
            assert spelling != str(number)
        else:
            assert made == template.fill([number])


# Signatures


def test_method_decorator_hides_self_from_the_signature() -> None:
    """Its partial of a bound method claims to take `self`, and doesn't."""
    seen: list[inspect.Signature] = []

    def spy(function: Callable[..., Any]) -> Callable[..., Any]:
        seen.append(call_signature(function))
        return function

    class Collector:
        @method_decorator(spy)
        def collect(self, customer_id: int) -> int:
            return customer_id

    assert Collector().collect(1) == 1
    assert [*seen[-1].parameters] == ["customer_id"]


def test_ordinary_wrapper_shows_the_wrapped_signature() -> None:
    """A decorator that uses functools.wraps takes what the function below takes."""
    wrapped = distributed_lock("<customer_id>:x")(collect)
    assert [*call_signature(wrapped).parameters] == ["customer_id", "invoice"]


def test_call_that_python_would_refuse_is_refused_likewise() -> None:
    """A TypeError, as of the call itself."""
    name = SemaphoreTemplate("<customer_id>").for_calls_of(collect)
    with pytest.raises(TypeError, match="missing a required argument: 'customer_id'"):
        name()
    with pytest.raises(TypeError, match="unexpected keyword argument 'page'"):
        name(1, page=2)


def test_arguments_of_a_decorator_below_are_its_own() -> None:
    """One that shows the signature of what it wraps may take more than that, as paginators do."""

    @functools.wraps(collect)
    def paginated(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    name = SemaphoreTemplate("<customer_id>").for_calls_of(paginated)
    assert name(customer_id=1, page=2) == "1"


def test_bound_arguments_hold_defaults_and_the_members_of_kwargs() -> None:
    """All that a template may name, and neither *args nor **kwargs itself."""

    def view(request: str, page: int = 1, *rest: int, **options: str) -> None: ...

    bound = bind_arguments(call_signature(view), ("r", 2, 3), {"sort": "up"})
    assert bound == {"request": "r", "page": 2, "sort": "up"}
    assert bind_arguments(call_signature(view), ("r",), {}) == {"request": "r", "page": 1}


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
    """So a separator that is accepted can't come from a value."""
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
def test_texts_are_read_out_of_what_they_made(first: str, second: str) -> None:
    """Wherever the separator and the encoding have the same characters."""
    template = SemaphoreTemplate("a%<one>.:.<two>%41")
    assert template.read(template.fill([first, second])) == [first, second]


@pytest.mark.parametrize("semaphore", ["1234", "1234collectPayments", "1:2collectPayment"])
def test_nothing_is_read_out_of_what_the_template_cannot_make(semaphore: str) -> None:
    """None, not an error: another template may have made it."""
    assert SemaphoreTemplate("<customer_id>collectPayment").read(semaphore) is None
