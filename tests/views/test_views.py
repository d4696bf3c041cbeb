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

pytestmark = pytest.mark.usefixtures("scripted")

FREE = ["collect", "method", "dispatch", "not-atomic", "release", "or-202", "or-202-method"]
FREE += ["helper", "http-helper", "raising"]


@pytest.fixture
def held_elsewhere(scripted: ScriptedBackend) -> None:
    """Hold customer 1234's lock."""
    assert acquire_lock("1234collectPayment")


@pytest.mark.parametrize("path", FREE)
def test_free_view_works_and_releases(client: Client, scripted: ScriptedBackend, path: str) -> None:
    """As if it weren't locked."""
    assert client.get(f"/{path}/1234/").status_code == 200
    assert scripted.owner == ""
    assert scripted.calls == ["acquire", "release"]


@pytest.mark.usefixtures("held_elsewhere")
@pytest.mark.parametrize("path", ["collect", "method", "dispatch", "not-atomic", "http-helper"])
def test_contended_view_answers_409(client: Client, path: str) -> None:
    """Come again; and don't keep this answer."""
    response = client.get(f"/{path}/1234/")
    assert response.status_code == 409
    assert response["Retry-After"] == "1"
    assert response["Cache-Control"] == "no-store"
    assert response["Vary"] == "Accept"
    assert response["Content-Type"] == "text/plain"
    assert b"try again" in response.content


@pytest.mark.usefixtures("held_elsewhere")
@pytest.mark.parametrize("accept", ["application/json", "text/html;q=0.5, application/json"])
def test_contended_view_answers_in_json_if_asked_to(client: Client, accept: str) -> None:
    """That is, when JSON is preferred."""
    response = client.get("/collect/1234/", headers={"accept": accept})
    assert response.status_code == 409
    assert json.loads(response.content)["error"] == "contended"


@pytest.mark.usefixtures("held_elsewhere")
@pytest.mark.parametrize("accept", ["*/*", "text/html, */*;q=0.1", "image/png"])
def test_contended_view_uses_the_sites_template(client: Client, accept: str) -> None:
    """409.html, which may say what it likes."""
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
def test_helper_raises_what_its_caller_would_overlook(client: Client, path: str) -> None:
    """Only what Django resolved for the request answers it; http=True or False overrides."""
    with pytest.raises(LockNotAcquired):
        client.get(f"/{path}/1234/")


def test_view_called_by_hand_raises() -> None:
    """No resolver, no answer."""
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
    assert response["Retry-After"] == "1"
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
    """No transaction is around it: what it did is kept, so nobody is asked to try again."""
    monkeypatch.setattr(scripted, "release", lambda lease, keep: False)
    response = client.get(f"/{path}/1234/")
    assert response.status_code == 200
    assert "Retry-After" not in response
    assert "was lost before its view ended" in caplog.text


def test_loss_of_another_lease_is_the_views_own_error(scripted: ScriptedBackend) -> None:
    """It is not this lock's to answer."""
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


def test_semaphore_of_a_callable_is_validated(client: Client) -> None:
    """As one of a template."""
    assert client.get("/or-202/a%00b/").status_code == 400
