"""`python -m tests.support.themed_pages`: the admin's pages of a site with another look.

It prints what each page answers, and which of our controls are there.
"""

import json
from typing import Any

import django


def pages() -> dict[str, list[Any]]:
    """Visit each page as an operator; return its status and its controls."""
    from tests.support.admin_pages import BOTH, FORCE_RELEASE, LIST, lock_page, log_in
    from tests.support.shown_stores import a_lock, shown_store

    client = log_in(*BOTH)
    seen = {}
    with shown_store() as shown:
        shown.locks = [a_lock("report", token=1)]
        data = {"selected": "1:report"}
        for name, response in {
            "index": client.get("/admin/"),
            "list": client.get(LIST),
            "lock": client.get(lock_page("shown", "report")),
            "confirmation": client.post(FORCE_RELEASE, data),
            "released": client.post(FORCE_RELEASE, {**data, "confirmed": "yes"}, follow=True),
            "log": client.get(lock_page("shown", "report", "history")),
        }.items():
            page = response.content.decode()
            controls = ("Search", "Force-release", "Pause updates", "Force-released")
            shows = [each for each in controls if each in page]
            assets = [each for each in ("admin.css", "refresh.js") if f"distlock/{each}" in page]
            seen[name] = [response.status_code, *shows, *assets]
    return seen


def main() -> None:
    """Make the site's tables in memory, and print what its pages have."""
    django.setup()
    from django.core.management import call_command
    from django.test.utils import setup_test_environment

    setup_test_environment()
    call_command("migrate", verbosity=0)
    print(json.dumps(pages()))


if __name__ == "__main__":
    main()
