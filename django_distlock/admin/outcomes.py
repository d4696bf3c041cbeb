"""Tell the operator, and the admin's log, what came of a force-release."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from django.contrib import messages
from django.utils.functional import Promise
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from .force_release import Outcome, Selected

NAMED: Final = 10
"""How many locks a message names."""

TOLD: Final[dict[Outcome, tuple[int, Promise]]] = {
    Outcome.RELEASED: (messages.SUCCESS, _("Force-released: {locks}.")),
    Outcome.HELD_BY_ANOTHER: (
        messages.WARNING,
        _("Not released, because another holder has it by now: {locks}."),
    ),
    Outcome.FREE: (messages.INFO, _("Free already: {locks}.")),
    Outcome.UNKNOWN: (
        messages.ERROR,
        _("The store did not answer, so it may have been released, or not: {locks}. {error}"),
    ),
    Outcome.NOT_TRIED: (messages.ERROR, _("Not tried, because the store did not answer: {locks}.")),
}


class Message(NamedTuple):
    """A message of the admin."""

    level: int
    text: SafeString


def messages_of(outcomes: Iterable[tuple[Selected, Outcome, str]]) -> Iterator[Message]:
    """Yield one message for each kind of outcome, which names the locks."""
    by_kind: dict[Outcome, list[Selected]] = {}
    errors = {}
    for selected, outcome, error in outcomes:
        by_kind.setdefault(outcome, []).append(selected)
        errors[outcome] = error
    for kind, (level, text) in TOLD.items():
        if kind in by_kind:
            locks = _names(by_kind[kind])
            yield Message(level, format_html(str(text), locks=locks, error=errors[kind]))


def _names(locks: list[Selected]) -> SafeString:
    names = format_html_join(", ", "<bdi>{}</bdi>", ((each.semaphore,) for each in locks[:NAMED]))
    more = len(locks) - NAMED
    if more <= 0:
        return names
    return format_html("{} {}", names, ngettext("and %d more", "and %d more", more) % more)


def log_message(selected: Selected, outcome: Outcome) -> str:
    """Return the text of an entry in the admin's log; empty if nothing was done."""
    if outcome is Outcome.RELEASED:
        return gettext("Force-released, token %(token)d.") % {"token": selected.token}
    if outcome is Outcome.UNKNOWN:
        return gettext("Tried to force-release, token %(token)d; the store did not answer.") % {
            "token": selected.token
        }
    return ""
