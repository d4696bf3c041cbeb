"""The addresses of the pages: which store, which lock, and which part of a list."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import urlencode

from django.contrib.admin.utils import quote
from django.http import QueryDict
from django.urls import reverse

from django_distlock.models import Lock
from django_distlock.records import LockQuery, LockState

STATES = {"held": LockState.HELD, "stale": LockState.STALE}
"""The values of `state` in an address; none means both."""


@dataclass(frozen=True)
class ListAddress:
    """What a list shows: a store's tab, a search, a state and a page."""

    alias: str
    search: str = ""
    state: str = ""
    page: int = 1

    @classmethod
    def parse(cls, query: QueryDict, default_alias: str) -> Self:
        """Read the address's query; what makes no sense counts as not given."""
        state, page = query.get("state", ""), query.get("p", "")
        is_page = page.isascii() and page.isdigit() and len(page) < 7
        return cls(
            alias=query.get("store") or default_alias,
            search=query.get("q", ""),
            state=state if state in STATES else "",
            page=max(1, int(page)) if is_page else 1,
        )

    @property
    def query(self) -> str:
        """The query of a link to this list."""
        values: dict[str, Any] = {"store": self.alias}
        if self.search:
            values["q"] = self.search
        if self.state:
            values["state"] = self.state
        if self.page > 1:
            values["p"] = self.page
        return urlencode(values)

    def on_page(self, page: int) -> Self:
        """Return the same list's other page."""
        return replace(self, page=page)

    def in_state(self, state: str) -> Self:
        """Return the first page of the same search in another state."""
        return replace(self, state=state, page=1)

    def lock_query(self, limit: int) -> LockQuery:
        """Return the question to the store."""
        return LockQuery(
            search=self.search, state=STATES.get(self.state), page=self.page, limit=limit
        )


def object_id(alias: str, semaphore: str) -> str:
    """Return what identifies a lock among all stores, in addresses and in the admin's log."""
    return f"{alias}:{semaphore}"


def lock_of(object_id: str, aliases: Collection[str]) -> tuple[str, str]:
    """Return the alias and the semaphore. Without an alias, it is a lock of the first store."""
    for alias in sorted(aliases, key=len, reverse=True):  # an alias may have a colon, too
        if object_id.startswith(f"{alias}:"):
            return alias, object_id.removeprefix(f"{alias}:")
    return next(iter(aliases), ""), object_id


class Addresses:
    """The addresses of an admin site's pages."""

    def __init__(self, site: str) -> None:
        self._site = site

    def list(self, address: ListAddress) -> str:
        """Return the address of a list."""
        return f"{self._reverse('changelist')}?{address.query}"

    def lock(self, alias: str, semaphore: str) -> str:
        """Return the address of a lock's own page."""
        return self._reverse("change", quote(object_id(alias, semaphore)))

    def log(self, alias: str, semaphore: str) -> str:
        """Return the address of what the admin's log says about a lock."""
        return self._reverse("history", quote(object_id(alias, semaphore)))

    def force_release(self, address: ListAddress) -> str:
        """Return the address that asks for confirmation; it leads back to the list."""
        return f"{self._reverse('force_release')}?{address.query}"

    def _reverse(self, page: str, *arguments: str) -> str:
        name = f"admin:{Lock._meta.app_label}_{Lock._meta.model_name}_{page}"
        return reverse(name, args=arguments, current_app=self._site)
