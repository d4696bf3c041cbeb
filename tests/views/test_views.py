"""What locked views answer."""

import json
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings

from django_distlock import LockBackendUnavailable, LockNotAcquired, acquire_lock, distributed_lock
from django_distlock.exceptions import LockLost
from tests.app import views
from tests.support.scripted_store import ScriptedBackend
from tests.support.visits import SOON

pytestmark = pytest.mark.usefixtures("scripted")

FREE = ["collect", "method", "dispatch", "not-atomic", "release", "or-202", "or-202-method"]
FREE += ["helper", "http-helper", "raising"]


@pytest.fixture
def held_elsewhere(scripted: ScriptedBackend) -> None:
    """Hold customer 1234's lock."""
    assert acquire_lock("1234collectPayment")


@pytest.mark.parametrize("path", FREE)
def test_free_view_works_and_releases(client: Client, scripted: ScriptedBackend, path: str) -> None:
    """As without a lock."""
    assert client.get(f"/{path}/1234/").status_code == 200
    assert scripted.owner == ""
    assert scripted.calls == ["acquire", "release"]


@pytest.mark.usefixtures("held_elsewhere")
@pytest.mark.parametrize("path", ["collect", "method", "dispatch", "not-atomic", "http-helper"])
def test_contended_view_answers_409(client: Client, path: str) -> None:
    """The answer has Retry-After, and must not be cached."""
    response = client.get(f"/{path}/1234/")
    assert response.status_code == 409
    assert response["Retry-After"] in SOON
    assert response["Cache-Control"] == "no-store"
    assert response["Vary"] == "Accept"
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert b"try again" in response.content


@pytest.mark.usefixtures("held_elsewhere")
@pytest.mark.parametrize("accept", ["*/*", "application/json"])
def test_retry_after_differs_between_clients(client: Client, accept: str) -> None:
    """Otherwise clients that collided would collide again."""
    answers = [client.get("/collect/1234/", headers={"accept": accept}) for _ in range(100)]
    assert {answer["Retry-After"] for answer in answers} == set(SOON)


@pytest.mark.parametrize(
    ("terms", "seconds"),
    [
        ({"ttl": 1}, {"1"}),
        ({"ttl": 2.5}, {"1", "2"}),
        ({"ttl": 0.5}, {"1"}),
        ({"max_hold": 2}, {"1", "2"}),
        ({"ttl": None}, set(SOON)),
    ],
)
def test_retry_after_is_no_longer_than_a_lease(terms: dict[str, Any], seconds: set[str]) -> None:
    """That is the ttl of the view's lock, which usually is the holder's, too."""
    assert acquire_lock("report")
    view = distributed_lock("report", http=True, **terms)(lambda request: HttpResponse())
    request = RequestFactory().get("/")
    assert {view(request)["Retry-After"] for _ in range(100)} == seconds


def test_retry_after_differs_when_the_store_is_down(
    client: Client, scripted: ScriptedBackend
) -> None:
    """So that retries don't bring it down again."""
    scripted.answer("acquire", *[LockBackendUnavailable("no route")] * 100)
    answers = [client.get("/collect/1234/") for _ in range(100)]
    assert {(answer.status_code, answer["Retry-After"]) for answer in answers} == {
        (503, seconds) for seconds in SOON
    }


@pytest.mark.usefixtures("held_elsewhere")
def test_plain_answer_says_how_it_is_encoded(
    client: Client, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """A translation may exceed ASCII, and a site may use another charset."""
    settings.DEFAULT_CHARSET = "latin-1"
    monkeypatch.setattr("django_distlock.views.answers._", lambda text: "Später €")
    response = client.get("/collect/1234/")
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response.content == "Später €\n".encode()


@pytest.mark.usefixtures("held_elsewhere")
@pytest.mark.parametrize("accept", ["application/json", "text/html;q=0.5, application/json"])
def test_contended_view_answers_in_json_if_asked_to(client: Client, accept: str) -> None:
    """When the client prefers JSON."""
    response = client.get("/collect/1234/", headers={"accept": accept})
    assert response.status_code == 409
    assert json.loads(response.content)["error"] == "contended"


@pytest.mark.usefixtures("held_elsewhere")
@pytest.mark.parametrize("accept", ["*/*", "text/html, */*;q=0.1", "image/png"])
def test_contended_view_uses_the_sites_template(client: Client, accept: str) -> None:
    """The site's own 409.html."""
    loaders = [("django.template.loaders.locmem.Loader", {"409.html": "<b>{{ detail }}</b>"})]
    backend = "django.template.backends.django.DjangoTemplates"
    with override_settings(TEMPLATES=[{"BACKEND": backend, "OPTIONS": {"loaders": loaders}}]):
        response = client.get("/collect/1234/", headers={"accept": accept})
    assert response.status_code == 409
    assert response.content.startswith(b"<b>This is being worked on")
    assert response["Content-Type"].startswith("text/html")


@pytest.mark.usefixtures("held_elsewhere")
@pytest.mark.parametrize("path", ["or-202", "or-202-method"])
def test_on_conflict_answers_instead(client: Client, path: str) -> None:
    """With the request and the view's arguments, without a method's self."""
    response = client.get(f"/{path}/1234/")
    assert (response.status_code, response.content) == (202, b"1234 is busy")


@pytest.mark.usefixtures("held_elsewhere")
@pytest.mark.parametrize("path", ["helper", "raising"])
def test_helper_raises_instead_of_answering(client: Client, path: str) -> None:
    """Only the callable that Django resolved answers the request; http=True or False overrides."""
    with pytest.raises(LockNotAcquired):
        client.get(f"/{path}/1234/")


def test_view_called_by_hand_raises() -> None:
    """Without a resolved URL it doesn't answer."""
    request = RequestFactory().get("/")
    acquire_lock("1234collectPayment")
    with pytest.raises(LockNotAcquired):
        views.collect(request, customer_id="1234")
    with pytest.raises(LockNotAcquired):
        views.collect(request=request, customer_id="1234")
    assert (
        distributed_lock("1234collectPayment", http=True)(lambda request: HttpResponse())(
            request=request
        ).status_code
        == 409
    )


def test_store_that_is_down_is_not_a_conflict(
    client: Client, scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """503, and an error in the log (peer defects 3 and 20)."""
    scripted.answer("acquire", LockBackendUnavailable("no route"))
    response = client.get("/collect/1234/", headers={"accept": "application/json"})
    assert response.status_code == 503
    assert response["Retry-After"] in SOON
    assert response["Cache-Control"] == "no-store"
    assert response.json()["error"] == "unavailable"
    assert "no route" in caplog.text


@pytest.mark.parametrize("path", ["collect", "method", "dispatch"])
def test_lease_lost_meanwhile_leaves_the_views_answer(
    client: Client,
    scripted: ScriptedBackend,
    path: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no transaction: its work is kept, so the answer invites no retry."""
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    response = client.get(f"/{path}/1234/")
    assert response.status_code == 200
    assert "Retry-After" not in response
    assert "was lost before its view ended" in caplog.text


def test_loss_of_another_lease_is_the_views_own_error(scripted: ScriptedBackend) -> None:
    """This lock doesn't answer for another one."""
    request = RequestFactory().get("/")

    @distributed_lock("report", http=True)
    def view(request: Any) -> HttpResponse:
        raise LockLost("another")

    with pytest.raises(LockLost, match="another"):
        view(request)
    assert scripted.owner == ""


@pytest.mark.parametrize("customer", ["a" * 250, "%F0%9F%94%92" * 22])
def test_semaphore_that_gets_too_long_is_400(
    client: Client, scripted: ScriptedBackend, customer: str
) -> None:
    """A bad request, not an error of the site; and never cut."""
    assert client.get(f"/collect/{customer}/").status_code == 400
    assert scripted.calls == []


@pytest.mark.parametrize("url", ["/collect/{}/", "/or-202/{}/"])
@pytest.mark.parametrize("is_debugged", [False, True])
def test_invalid_semaphore_is_400_in_json_if_asked_to(
    client: Client, settings: Any, caplog: pytest.LogCaptureFixture, url: str, is_debugged: bool
) -> None:
    """Like a conflict. The reason is logged once, and answered only with DEBUG."""
    settings.DEBUG = is_debugged
    response = client.get(url.format("a" * 250), headers={"accept": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"] == "invalid"
    assert ("at most 255 characters" in response.json()["detail"]) is is_debugged
    assert (response["Vary"], response["Cache-Control"]) == ("Accept", "no-store")
    [record] = caplog.records
    assert record.name == "django.request"
    assert "at most 255 characters" in record.message


def test_invalid_semaphore_is_400_as_a_page_else(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The site's own page, with Vary, so that no cache serves it to clients that want JSON."""
    response = client.get(f"/collect/{'a' * 250}/", headers={"accept": "text/html"})
    assert response.status_code == 400
    assert (response["Vary"], response["Cache-Control"]) == ("Accept", "no-store")
    assert response["Content-Type"] == "text/html; charset=utf-8"
    assert b"Bad Request" in response.content
    assert [record.name for record in caplog.records] == ["django.request"]


def test_semaphore_of_a_callable_is_validated(client: Client) -> None:
    """Like that of a template."""
    assert client.get("/or-202/a%00b/").status_code == 400
