"""Each section's figures as a sheet: rows and columns of text, for the terminal and for a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from benchmarks.contenders import BARE, OURS
from benchmarks.sections.contention import CONTENTION, HAND_OVER, SEMAPHORES
from benchmarks.sections.package import PACKAGE
from benchmarks.sections.pairs import ASYNC, PAIR, REFUSAL
from benchmarks.sections.renewals import RENEWALS
from benchmarks.sections.rows import ROWS
from benchmarks.sections.tasks import TASKS
from benchmarks.sections.views import BARE_VIEW, LOCKED_VIEW, VIEWS
from benchmarks.waiting import DIGITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.pair import Spread
    from benchmarks.report.figures import Figure, Run


class Sheet(NamedTuple):
    """A table of text. The first column names the row."""

    name: str
    title: str
    headings: list[str]
    rows: list[list[str]]


def sheets(run: Run) -> Iterator[Sheet]:
    """Lay out each section that was measured."""
    for name, make in MAKERS.items():
        if run.of(name):
            yield from make(run)


def calls(section: str, title: str) -> Callable[[Run], Iterator[Sheet]]:
    """Return the maker of a sheet of calls: their time, and what the bare calls' is."""

    def make(run: Run) -> Iterator[Sheet]:
        rows = []
        for figure in run.of(section):
            store = run.of(section, store=figure.store)
            bare = next(each for each in store if each.library == BARE)
            mine = next(each for each in store if each.library == OURS)
            peer = figure.library not in {OURS, BARE}
            rows.append(
                [
                    named(figure),
                    *cells(figure.spread),
                    "" if figure is bare else times(figure.over(bare)),
                    times(mine.over(figure)) if peer else "",
                ]
            )
        headings = ["", "µs", "quartiles", "over bare calls", "django-distlock over it"]
        yield Sheet(section, title, headings, rows)

    return make


def views(run: Run) -> Iterator[Sheet]:
    """Lay out what a decorated view adds, beside its store's pair."""
    rows = []
    found = {(figure.store, figure.case): figure for figure in run.of(VIEWS)}
    for (store, case), bare in found.items():
        if not case.startswith(BARE_VIEW):
            continue
        kind = case.removeprefix(BARE_VIEW)
        locked, pair = found[store, LOCKED_VIEW + kind], found[store, PAIR]
        added = locked._replace(
            values=[one - other for one, other in zip(locked.values, bare.values, strict=True)]
        )
        rows.append(
            [
                store + kind,
                *cells(added.spread),
                f"{pair.spread.median:.0f}",
                times(added.over(pair)),
            ]
        )
    headings = ["", "added, µs", "quartiles", "pair, µs", "over the pair"]
    yield Sheet(VIEWS, "What a decorated view adds to a bare one", headings, rows)


def contention(run: Run) -> Iterator[Sheet]:
    """Lay out a sheet for each number of processes."""
    for case in dict.fromkeys(figure.case for figure in run.of(CONTENTION)):
        yield waits(run, CONTENTION, case, f"{case} want one lock, and hold it for 1 ms")


def tasks(run: Run) -> Iterator[Sheet]:
    """Lay out how the tasks of an event loop wait."""
    (case,) = {figure.case for figure in run.of(TASKS)}
    yield waits(run, TASKS, case, f"{case} of one event loop want one lock, and hold it for 1 ms")


def waits(run: Run, section: str, case: str, title: str) -> Sheet:
    """Return a sheet with a column for each figure of the waiters."""
    found: dict[str, list[str]] = {}
    for figure in run.of(section, case=case):
        digits = DIGITS[figure.unit]
        found.setdefault(named(figure), []).append(f"{figure.spread.median:.{digits}f}")
    rows = [[name, *values] for name, values in found.items()]
    return Sheet(f"{section}, {case}", title, ["", *DIGITS], rows)


def hand_over(run: Run) -> Iterator[Sheet]:
    """Lay out the times from the release to the waiter's grant."""
    rows = [
        [named(figure), *cells(figure.spread, 2), f"{max(figure.values):.2f}"]
        for figure in run.of(HAND_OVER)
    ]
    headings = ["", "ms", "quartiles", "longest"]
    yield Sheet(HAND_OVER, "From the call that releases to the waiter's grant", headings, rows)


def by_size(section: str, title: str, digits: int) -> Callable[[Run], Iterator[Sheet]]:
    """Return the maker of a sheet with a column for each size, and the quartiles of the last."""

    def make(run: Run) -> Iterator[Sheet]:
        sizes = list(dict.fromkeys(figure.case for figure in run.of(section, library=OURS)))
        rows = []
        for store in stores(run, section):
            found = run.of(section, store=store, library=OURS)
            rows.append([store, *(f"{each.spread.median:,.{digits}f}" for each in found)])
        yield Sheet(section, title, ["", *sizes], rows)

    return make


def rows(run: Run) -> Iterator[Sheet]:
    """Lay out the pair among ever more rows, and the last one over the first."""
    lines = []
    sizes = list(dict.fromkeys(figure.case for figure in run.of(ROWS)))
    for store in stores(run, ROWS):
        mine = run.of(ROWS, store=store, library=OURS)
        ratios = [
            figure.over(bare)
            for figure, bare in zip(mine, run.of(ROWS, store=store, library=BARE), strict=True)
        ]
        growth = ratios[-1].median / ratios[0].median
        lines.append(
            [
                store,
                *(
                    f"{figure.spread.median:.0f} ({ratio.median:.2f})"
                    for figure, ratio in zip(mine, ratios, strict=True)
                ),
                f"{growth:.2f}",
            ]
        )
    title = "Acquire and release among other locks: µs, and times the bare calls"
    yield Sheet(ROWS, title, ["", *sizes, "last over first"], lines)


def package(run: Run) -> Iterator[Sheet]:
    """Lay out time and memory of django.setup()."""
    found: dict[str, list[str]] = {}
    for figure in run.of(PACKAGE):
        found.setdefault(figure.library, []).append(f"{figure.spread.median:.1f}")
    title = "django.setup() of a process, with each library's app"
    yield Sheet(
        PACKAGE, title, ["", "ms", "memory, MiB"], [[name, *row] for name, row in found.items()]
    )


MAKERS: dict[str, Callable[[Run], Iterator[Sheet]]] = {
    PAIR: calls(PAIR, "Acquire and release, uncontended"),
    REFUSAL: calls(REFUSAL, "A refused try"),
    VIEWS: views,
    HAND_OVER: hand_over,
    CONTENTION: contention,
    TASKS: tasks,
    SEMAPHORES: by_size(SEMAPHORES, "Pairs a second of 8 processes, by the number of locks", 0),
    RENEWALS: by_size(RENEWALS, "To renew all leases of a process, in ms", 1),
    ROWS: rows,
    PACKAGE: package,
}


def stores(run: Run, section: str) -> list[str]:
    """Return the stores of a section, in order."""
    return list(dict.fromkeys(figure.store for figure in run.of(section)))


def named(figure: Figure) -> str:
    """Return the contender's name."""
    if figure.library == BARE:
        return f"{figure.store}: bare calls"
    case = f", {ASYNC}" if figure.case == ASYNC else ""
    return f"{figure.store}: {figure.library}{case}"


def cells(spread: Spread, digits: int = 0) -> list[str]:
    """Return the median and the quartiles."""
    middle, low, high = spread.cells(1, digits if spread.median >= 10 else 2)
    return [middle, f"{low} - {high}"]


def times(spread: Spread) -> str:
    """Return a ratio."""
    return f"{spread.median:.2f}"
