"""Lock stores that wait longer for an answer, so that a busy machine doesn't seem to be down."""

from __future__ import annotations

import inspect
from typing import Any

from django.utils.module_loading import import_string

PATIENCE = 30.0
"""Seconds: a test that takes that long has other problems."""


def with_patience(stores: dict[str, Any]) -> dict[str, Any]:
    """Return the same DISTLOCK setting with another `store_timeout`, where stores have one."""
    return {alias: _with_patience(store) for alias, store in stores.items()}


def _with_patience(store: dict[str, Any]) -> dict[str, Any]:
    if "store_timeout" not in inspect.signature(import_string(store["BACKEND"])).parameters:
        return store
    return store | {"OPTIONS": store["OPTIONS"] | {"store_timeout": PATIENCE}}
