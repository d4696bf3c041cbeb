"""The site of the documentation: `tox run -e docs` builds it in .tox/docs/site."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

import django
from django.conf import settings

ROOT = Path(__file__).parent.parent
SOURCE = "https://github.com/django-distlock/django-distlock/"
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
# The API reference imports the package.
settings.configure(
    INSTALLED_APPS=[
        *(f"django.contrib.{app}" for app in ("admin", "auth", "contenttypes", "messages")),
        "debug_toolbar",
        "django_distlock",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}},
    STATIC_URL="static/",
)
django.setup()

project = "django-distlock"
author = "the contributors of django-distlock"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
exclude_patterns = ["_build", "templates"]
extensions = [
    "myst_parser",
    "notfound.extension",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "machines",
    "signatures",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
default_role = "name"  # docstrings write `code`, as Markdown does
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .go"

html_theme = "furo"
pygments_dark_style = "a11y-dark"
html_title = f"{project} {release}"
html_baseurl = os.environ.get(
    "READTHEDOCS_CANONICAL_URL", "https://django-distlock.readthedocs.io/en/stable/"
)
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_logo = "static/logo.svg"
html_favicon = "static/logo.svg"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_context = {"html_baseurl": html_baseurl}
html_theme_options = {
    "source_repository": SOURCE,
    "source_branch": "main",
    "source_directory": "docs/",
    "light_css_variables": {
        "color-brand-primary": "#0b6b4b",
        "color-brand-content": "#0b6b4b",
        "color-brand-visited": "#5b4a8a",
    },
    "dark_css_variables": {
        "color-brand-primary": "#5fd3a6",
        "color-brand-content": "#5fd3a6",
        "color-brand-visited": "#b8a9e6",
    },
}
# Read the Docs shows it at any address that doesn't exist.
notfound_context = {
    "title": "Page not found",
    "body": "<h1>Page not found</h1><p>Search for it, or choose a page of the contents.</p>",
}
llms_summary = (
    "Distributed locks for Django: of all processes on all hosts, one at a time runs the code that "
    "you lock. A decorator locks a view, a task or a command, sync or async. The locks are kept in "
    "the SQL database, in Redis, in Memcached, or in a lock server. A lock has a time to live, so "
    "it becomes free when its holder dies."
)
# Where pictures and other files of the pages are.
llms_files = f"{SOURCE}raw/main/docs/"
