"""The figures of a run, round by round, and how they are saved."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.pair import Spread

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Figure(NamedTuple):
    """What was measured of one contender, once in each round."""

    section: str
    store: str
    """Where the locks are kept."""
    library: str
    case: str
    """What was varied: how many processes, rows …"""
    unit: str
    values: list[float]

    @property
    def spread(self) -> Spread:
        """Return the median and the quartiles over the rounds."""
        return Spread.of(self.values)

    def over(self, other: Figure) -> Spread:
        """Return how many times as much it is, within each round."""
        pairs = zip(self.values, other.values, strict=True)
        return Spread.of([mine / its for mine, its in pairs])


class Run(NamedTuple):
    """Everything that a run has found, and on what."""

    about: dict[str, Any]
    """When and how it ran, on which machine, and versions."""
    figures: list[Figure]

    def of(self, section: str, **wanted: str) -> list[Figure]:
        """Return a section's figures, of this store, library, case, unit."""
        return [
            figure
            for figure in self.figures
            if figure.section == section
            and all(getattr(figure, name) == value for name, value in wanted.items())
        ]

    def save(self, file: Path) -> None:
        """Write it as JSON, a figure a line."""
        lines = ",\n".join(
            json.dumps({**figure._asdict(), "values": rounded(figure.values)})
            for figure in self.figures
        )
        about = json.dumps(self.about, indent=1)
        file.write_text(f'{{"about": {about},\n"figures": [\n{lines}\n]}}\n', "utf-8")

    @classmethod
    def load(cls, file: Path) -> Run:
        """Read what save() wrote."""
        found = json.loads(file.read_text("utf-8"))
        return cls(found["about"], [Figure(**figure) for figure in found["figures"]])


def rounded(values: Iterable[float]) -> list[float]:
    """Return the values with four significant digits."""
    return [float(f"{value:.4g}") for value in values]
