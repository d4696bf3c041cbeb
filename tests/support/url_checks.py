"""Views for the system check of placeholders, and its warnings."""

from __future__ import annotations

import re
from typing import Any

from django.test import override_settings

from django_distlock import distributed_lock
from django_distlock.views.url_checks import check_placeholders

lock = distributed_lock("<customer_id>collectPayment")


def warned(*urlpatterns: Any) -> list[str]:
    """Return the callables that are warned of."""
    with override_settings(ROOT_URLCONF=urlpatterns):
        messages = check_placeholders(app_configs=None)
    assert {message.id for message in messages} <= {"distlock.W006"}
    return [re.sub(r"^tests\.views\.\w+\.", "", str(message.obj)) for message in messages]
