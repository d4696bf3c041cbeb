"""Plots of a run's figures, as SVG files that can be read on light and on dark pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator

from benchmarks.contenders import (
    BARE,
    MUTEX,
    OURS,
    PGLOCK,
    POTTERY,
    REDIS_LOCK,
    REDIS_PY,
    SHERLOCK,
)
from benchmarks.every_store import POSTGRESQL, REDIS, STORES
from benchmarks.sections.contention import CONTENTION, SEMAPHORES
from benchmarks.sections.pairs import ASYNC, PAIR
from benchmarks.sections.renewals import RENEWALS
from benchmarks.sections.rows import ROWS
from benchmarks.waiting import P99, RATE

from .sheets import named

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.report.figures import Figure, Run

INK, OWN, OTHER, FLOOR = "#7d8590", "#2f81f7", "#d29922", "#7d8590"
HUES = ("#2f81f7", "#d29922", "#3fb950", "#f47067", "#a371f7", "#39c5cf", "#db61a2", "#8b949e")
"""Colours that stand out from white and from black."""
COLOURS = {
    **dict(zip(STORES, HUES, strict=True)),
    **dict(zip((OURS, REDIS_PY, REDIS_LOCK, POTTERY, SHERLOCK), HUES, strict=False)),
    **dict(zip((PGLOCK, MUTEX), HUES[1:], strict=False)),
}
"""One thing has one colour in all plots."""
PLAIN = FuncFormatter(lambda value, _: f"{value:,g}")
STYLE: Any = {
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "django-distlock",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def draw(run: Run, directory: Path) -> None:
    """Write a file for each plot."""
    with mpl.rc_context(STYLE):
        for name, plot in PLOTS.items():
            canvas = plot(run)
            file = directory / f"{name}.svg"
            canvas.savefig(file, transparent=True, metadata={"Date": None, "Creator": None})


def plot_pairs(run: Run) -> Canvas:
    """Draw how long acquire and release take, with their quartiles."""
    pairs = [figure for figure in run.of(PAIR) if figure.case != ASYNC]
    pairs = [figure for figure in pairs if figure.spread.median >= 10][::-1]
    canvas = Canvas(figsize=(8, 0.27 * len(pairs) + 0.8), layout="constrained")
    axes = canvas.subplots()
    spreads = [figure.spread for figure in pairs]
    axes.barh(
        [named(figure) for figure in pairs],
        [spread.median for spread in spreads],
        xerr=[
            [spread.median - spread.low for spread in spreads],
            [spread.high - spread.median for spread in spreads],
        ],
        color=[colour(figure) for figure in pairs],
        error_kw={"ecolor": INK, "elinewidth": 1},
        height=0.7,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PLAIN)
    axes.margins(y=0.01)
    axes.set_title("acquire + release, uncontended: µs, less is better")
    return canvas


def plot_contention(run: Run) -> Canvas:
    """Draw rate and p99 by the number of processes: of each store, and beside other libraries."""
    canvas = Canvas(figsize=(9, 8), layout="constrained")
    columns = canvas.subplots(3, 2, sharex=True)
    groups: list[tuple[str, dict[str, Any]]] = [
        ("django-distlock", {"library": OURS}),
        ("in Redis", {"store": REDIS}),
        ("in PostgreSQL", {"store": POSTGRESQL}),
    ]
    for row, (title, wanted) in zip(columns, groups, strict=True):
        for axes, unit in zip(row, (RATE, P99), strict=True):
            found = run.of(CONTENTION, unit=unit, **wanted)
            label = "store" if "library" in wanted else "library"
            plot_lines(axes, found, label)
            if unit == RATE:
                axes.set_yscale("linear")
                axes.set_ylim(bottom=0)
            axes.set_title(f"{unit}: {title}")
        row[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    for axes in columns[-1]:
        axes.set_xlabel("processes that want one lock")
    return canvas


def plot_sizes(run: Run) -> Canvas:
    """Draw what more rows, leases and semaphores cost."""
    canvas = Canvas(figsize=(9, 3.6), layout="constrained")
    columns = canvas.subplots(1, 3)
    for axes, (section, title) in zip(
        columns,
        [
            (ROWS, "a pair among rows, µs"),
            (RENEWALS, "renewing all leases, ms"),
            (SEMAPHORES, "pairs a second on semaphores"),
        ],
        strict=True,
    ):
        plot_lines(axes, run.of(section, library=OURS), "store")
        axes.set_title(title)
    handles = columns[1].get_legend_handles_labels()
    canvas.legend(*handles, loc="outside lower center", ncols=4)
    return canvas


def plot_lines(axes: Axes, figures: list[Figure], label: str) -> None:
    """Draw a line for each store or library, in its colour, over the size in the case."""
    names = list(dict.fromkeys(getattr(figure, label) for figure in figures))
    for name in names:
        line = [figure for figure in figures if getattr(figure, label) == name]
        colour = COLOURS[name]
        sizes = [size(figure) for figure in line]
        spreads = [figure.spread for figure in line]
        axes.plot(sizes, [each.median for each in spreads], "o-", ms=3, color=colour, label=name)
        low, high = [each.low for each in spreads], [each.high for each in spreads]
        axes.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    sizes = sorted({size(figure) for figure in figures})
    axes.set_xticks(sizes, [brief(each) for each in sizes])
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axes.yaxis.set_major_formatter(PLAIN)


def brief(number: int) -> str:
    """Return a number as it fits under an axis."""
    return f"{number:,}".replace(",000,000", " M").replace(",000", " k")


def size(figure: Figure) -> int:
    """Return the number at the beginning of the case."""
    return int(figure.case.partition(" ")[0].replace(",", ""))


def colour(figure: Figure) -> str:
    """Return the colour of a bar."""
    return {OURS: OWN, BARE: FLOOR}.get(figure.library, OTHER)


PLOTS = {"pairs": plot_pairs, "contention": plot_contention, "sizes": plot_sizes}
