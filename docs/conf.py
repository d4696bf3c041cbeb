"""The site of the documentation: `tox run -e docs` builds it in .tox/docs/site."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import django
from django.conf import settings

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
# The API reference imports the package.
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_distlock"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}},
)
django.setup()

project = "django-distlock"
author = "the contributors of django-distlock"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
html_title = f"{project} {release}"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
exclude_patterns = ["_build"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_llms_txt",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
copybutton_exclude = ".linenos, .gp, .go"
llms_txt_summary = (
    "Distributed locks for Django: one worker at a time, across processes and hosts. Locks are "
    "kept in the SQL database, in Redis, in Memcached, or in a lock server."
)
