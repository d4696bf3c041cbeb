"""Wrong decorators: templates, callables, and what is decorated or called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_distlock import acquire_lock, distributed_lock, skip
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.bad_input.table import STORES, Row, shown
from tests.support.entries import LONG, NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


def collect(request: Any, customer_id: Any) -> str:
    """Stand for what is locked."""
    return "collected"


def collects() -> Iterator[int]:
    """Stand for a generator."""
    yield 1


async def collects_later() -> AsyncIterator[int]:
    """Stand for an async generator."""
    yield 1


class Payments:
    """Stand for a class."""


def decorated(semaphore: Any, *arguments: Any, **options: Any) -> Callable[[str], Any]:
    """Return a call that decorates a function, and calls it with the arguments, if any."""

    def decorate(alias: str) -> Any:
        locked: Any = distributed_lock(semaphore, backend=alias, **options)(collect)
        return locked(*arguments) if arguments else locked

    return decorate


def called_with(value: Any, template: str = "<customer_id>x") -> Callable[[str], Any]:
    """Return a call of a function with this value in its semaphore."""
    return decorated(template, None, value)


def decorating(what: Any) -> Callable[[str], Any]:
    """Return a call that decorates this."""
    return lambda alias: distributed_lock("job", backend=alias)(what)


def block(semaphore: Any = NAME, **options: Any) -> Callable[[str], Any]:
    """Return a call that enters a block."""

    def enter(alias: str) -> Any:
        with distributed_lock(semaphore, backend=alias, **options):
            return "entered"

    return enter


async def later(*arguments: Any) -> str:
    """Stand for an async on_conflict."""
    raise NotImplementedError


def contended(alias: str) -> Any:
    """Call a sync function whose on_conflict is async, while another call has the lock."""
    lease = acquire_lock("1x", backend=alias)
    assert lease
    try:
        return called_with_conflict(alias)
    finally:
        lease.release()


def called_with_conflict(alias: str) -> Any:
    return distributed_lock("<customer_id>x", backend=alias, on_conflict=later)(collect)(None, 1)


ANGLES = "'<' and '>' only stand around the name of an argument; .* give a callable instead"
NO_NAME = "is not the name of an argument or of its attribute"
TEMPLATES = {
    "<a><b>": "between two placeholders must stand a character such as ':', '/' or '|'",
    "<nope>x": "no argument 'nope' for <nope>; it has: request, customer_id",
    "<customer_id": ANGLES,
    "customer_id>": ANGLES,
    "<customer_id>>": ANGLES,
    "<>x": NO_NAME,
    "<5>x": NO_NAME,
    "<a b>x": NO_NAME,
    "<int:>x": NO_NAME,
    "<customer_id.>x": NO_NAME,
    "<uuid2:customer_id>x": "no converter 'uuid2' .* there are: int, slug, str, uuid",
    "<customer_id:int>x": "no converter 'customer_id'",
    "{customer_id}x": "one lock.* write <customer_id>",
    "{customer_id!r:05}x": "one lock.* write <customer_id>",
    "%(customer_id)sx": "one lock.* write <customer_id>",
    "$customer_id:x": "one lock.* write <customer_id>",
    "{}x": "one lock.* write <name>",
}
VALUES: list[tuple[Any, type[Exception], str]] = [
    *(
        (value, TypeError, "made of str, int, UUID, date or datetime.* write <customer_id.pk>")
        for value in [None, object(), 1.5, True, b"x", ["x"], {}, Payments]
    ),
    ("\ud800", InvalidSemaphore, "^<customer_id> is '.ud800', but must be without lone surrogates"),
    ("x" * 255, InvalidSemaphore, "at most 255 characters, this one has 256: .*sha256"),
    (10**400, InvalidSemaphore, "at most 255 characters, this one has 402"),
    (LONG, InvalidSemaphore, "^<customer_id> .*digits"),
]
INTS: list[tuple[Any, type[Exception], str]] = [
    *(
        (value, InvalidSemaphore, "^<int:customer_id> is .*, but must be ASCII digits")
        for value in ("seven", "\u0661", "1 ", "+1", "", "1e3")
    ),
    *(
        (value, TypeError, "^<int:customer_id> is .*, but must be an int.* <int:customer_id.pk>")
        for value in [None, 1.5, True, object()]
    ),
]
NO_FUNCTIONS: list[Any] = [5, None, "job", staticmethod(contended)]
MADE_BY: list[Any] = [later, collects, collects_later, Payments]
EXAMPLE = r'write @distributed_lock\("<customer_id>collectPayment"\)'
ROWS = [
    *(
        Row(f"template {template!r}", decorated(template), ValueError, f"^Template .*{says}")
        for template, says in TEMPLATES.items()
    ),
    Row("template ''", decorated(""), InvalidSemaphore, "A semaphore can't be empty"),
    Row("long template", decorated("x" * 256), InvalidSemaphore, "at most 255 characters"),
    Row("template with a NUL", decorated("<customer_id>\0"), InvalidSemaphore, "no control"),
    *(
        Row(f"value {shown(value)}", called_with(value), error, says)
        for value, error, says in VALUES
    ),
    *(
        Row(f"int {value!r:.20}", called_with(value, "<int:customer_id>x"), error, says)
        for value, error, says in INTS
    ),
    *(
        Row(f"a callable's {value!r:.9}", decorated(lambda *_, v=value: v, None, 1), error, says)
        for value, error, says in (
            (None, TypeError, "A semaphore is a str, not NoneType"),
            (5, TypeError, "A semaphore is a str, not int"),
            (b"x", TypeError, "A semaphore is a str, not bytes"),
            ("", InvalidSemaphore, "A semaphore can't be empty"),
            ("x" * 256, InvalidSemaphore, "at most 255 characters"),
            ("a\0", InvalidSemaphore, "no control characters"),
        )
    ),
    *(
        Row(f"made by {what.__name__}", decorated(what), TypeError, f"returns no str.*{EXAMPLE}")
        for what in MADE_BY
    ),
    *(
        Row(
            f"decorated {what!r:.20}",
            decorating(what),
            TypeError,
            "can't be decorated. Put .*below",
        )
        for what in NO_FUNCTIONS
    ),
    Row("decorated class", decorating(Payments), TypeError, "is a class. Lock one of its methods"),
    Row("decorated generator", decorating(collects), TypeError, "is a generator.* Use `with"),
    Row(
        "decorated async generator",
        decorating(collects_later),
        TypeError,
        "is an async generator.* Use `async with",
    ),
    *(
        Row(f"http={value!r}", block(http=value), TypeError, "^http is True, False or None, not ")
        for value in ["yes", 1, 0, b""]
    ),
    *(
        Row(f"on_conflict={value!r}", block(on_conflict=value), TypeError, "write on_conflict=skip")
        for value in ["skip", 5, True, ["skip"]]
    ),
    Row(
        "block with on_conflict", block(on_conflict=skip), TypeError, "for decorated calls; a `with"
    ),
    Row("block with http", block(http=True), TypeError, "^http is for decorated calls; a `with`"),
    Row(
        "block of a callable", block(lambda: NAME), TypeError, "a `with` block has none. Give the s"
    ),
    Row("block of a template", block("<id>x"), TypeError, "only a decorated call fills one in"),
    Row(
        "http=True without a request", decorated("x", 5, 5, http=True), TypeError, "no HttpRequest"
    ),
    Row("call without arguments", decorated("<customer_id>x", None), TypeError, "'customer_id'"),
    Row(
        "async on_conflict",
        contended,
        TypeError,
        "is async, but the locked function is not",
        STORES,
    ),
]
