"""The German and French catalogues are complete, compiled, and go together with Django's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from gettext import GNUTranslations
from pathlib import Path

import django
import pytest

from tests.support.paths import ROOT

LOCALE = ROOT / "django_distlock" / "locale"
LANGUAGES = sorted(each.name for each in LOCALE.iterdir())
FILE = Path("LC_MESSAGES", "django.po")

pytestmark = [pytest.mark.once, pytest.mark.parametrize("language", LANGUAGES)]


def texts(catalogue: str) -> set[str]:
    """Return the original texts in a file of texts, each on one line."""
    joined = re.sub(r'"\n"', "", catalogue)
    return {*re.findall(r'^msgid(?:_plural)? "(.+)"$', joined, re.MULTILINE)}


def compiled(file: Path) -> dict[str, str]:
    """Return the texts of a compiled catalogue, with their translations."""
    with file.open("rb") as opened:
        translations = GNUTranslations(opened)
    source = file.with_suffix(".po")
    known = texts(source.read_text("utf-8")) if source.exists() else set()
    return {text: translations.gettext(text) for text in known}


@pytest.mark.needs("gettext")
def test_every_text_of_the_package_is_in_the_catalogue(language: str, tmp_path: Path) -> None:
    """As `django-admin makemessages` collects them; none is left over."""
    package = tmp_path / "package"
    shutil.copytree(ROOT / "django_distlock", package, ignore=shutil.ignore_patterns("*.pyc"))
    options = ["--locale", language, "--no-location", "--no-obsolete"]
    command = [sys.executable, "-m", "django", "makemessages", *options]
    subprocess.run(command, cwd=package, check=True, capture_output=True, timeout=60)
    collected = (package / "locale" / language / FILE).read_text("utf-8")
    assert texts(collected) == texts((LOCALE / language / FILE).read_text("utf-8"))


@pytest.mark.needs("gettext")
def test_catalogue_is_complete_and_compiled(language: str, tmp_path: Path) -> None:
    """Each text is translated, with its placeholders; and the .mo file is that of the .po file."""
    source, target = LOCALE / language / FILE, tmp_path / "django.mo"
    command = ["msgfmt", "--check", "--statistics", "-o", str(target), str(source)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"\d+ translated messages\.\n", done.stderr)
    shutil.copy(source, target.with_suffix(".po"))
    assert compiled(target) == compiled(source.with_suffix(".mo"))


def test_texts_that_django_has_are_translated_as_there(language: str) -> None:
    """All apps share one catalogue: other words would change the pages of other apps."""
    ours = compiled((LOCALE / language / FILE).with_suffix(".mo"))
    root = Path(django.__file__).parent
    pattern = f"locale/{language}/LC_MESSAGES/django.mo"
    differing = set()
    for file in [root / "conf" / pattern, *root.glob(f"contrib/*/{pattern}")]:
        with file.open("rb") as opened:
            theirs = GNUTranslations(opened)
        differing |= {
            (text, translation, theirs.gettext(text))
            for text, translation in ours.items()
            if theirs.gettext(text) not in (text, translation)
        }
    assert differing == set()
