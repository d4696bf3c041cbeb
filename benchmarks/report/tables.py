"""Sheets as tables, on the terminal and in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from benchmarks.report.sheets import Sheet


def as_table(sheet: Sheet) -> Table:
    """Lay a sheet out for the terminal."""
    table = Table(title=sheet.title)
    for number, heading in enumerate(sheet.headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    for row in sheet.rows:
        table.add_row(*row)
    return table


def as_markdown(sheet: Sheet) -> str:
    """Lay a sheet out for a page; this package's rows are bold."""
    lines = [sheet.headings, ["--:" if heading else "---" for heading in sheet.headings]]
    lines += [
        [f"**{row[0]}**", *row[1:]] if "django-distlock" in row[0] else row for row in sheet.rows
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
