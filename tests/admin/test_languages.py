"""The admin's pages, and the answers of locked views, in the languages of the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.utils import translation

from django_distlock import acquire_lock, release_lock
from tests.support.admin_pages import LIST, lock_page, page_text
from tests.support.shown_stores import a_lock, a_stale_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.test import Client

    from tests.support.shown_stores import Shown

pytestmark = pytest.mark.django_db(databases="__all__")

LOCALE = "django.middleware.locale.LocaleMiddleware"


@pytest.fixture(autouse=True)
def languages(settings: Any) -> Iterator[None]:
    """Answer each client in its language."""
    session, *others = settings.MIDDLEWARE
    settings.MIDDLEWARE = [session, LOCALE, *others]
    with translation.override(None):  # the middleware leaves the last one's language
        yield


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("de", ("Sperren", "gehalten", "abgelaufen", "Inhaber", "Restzeit")),
        ("fr", ("Verrous", "détenu", "expiré", "Détenteur", "Temps restant")),
    ],
)
def test_list_is_in_the_language_of_the_operator(
    operator: Client, shown: Shown, language: str, words: tuple[str, ...]
) -> None:
    """Headings, states and buttons."""
    operator.defaults["HTTP_ACCEPT_LANGUAGE"] = language
    shown.locks = [a_lock("report"), a_stale_lock("mail")]
    text = page_text(operator, LIST)
    assert [word for word in words if word not in text] == []
    assert "Held for" not in text


def test_page_of_a_lock_is_in_the_language_of_the_operator(viewer: Client, shown: Shown) -> None:
    """Sentences, too."""
    viewer.defaults["HTTP_ACCEPT_LANGUAGE"] = "de"
    shown.locks = [a_lock("report")]
    text = page_text(viewer, lock_page("shown", "report"))
    assert "gehalten Ein Prozess arbeitet unter dieser Sperre." in text


def test_conflict_is_told_in_the_language_of_the_client(client: Client) -> None:
    """A page can show the text of the answer to its user."""
    assert acquire_lock("1234collectPayment")
    headers = {"accept-language": "fr", "accept": "application/json"}
    answer = client.post("/collect/1234/", headers=headers)
    assert release_lock("1234collectPayment")
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("Une autre requête y travaille")
