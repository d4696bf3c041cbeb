"""A graph of what comes before what, which finds the shortest cycle that a new edge closes."""

from collections import deque
from collections.abc import Hashable
from itertools import pairwise
from typing import Final, Generic, TypeVar

Node = TypeVar("Node", bound=Hashable)
Edge = TypeVar("Edge")

MOST_EDGES: Final = 10_000
"""How many edges are kept: a run of many tests must fill no memory, nor take long to search."""


class OrderGraph(Generic[Node, Edge]):
    """Nodes, each with those that came after it."""

    def __init__(self, most_edges: int = MOST_EDGES) -> None:
        self._after: dict[Node, dict[Node, Edge]] = {}
        self._reached: set[Node] = set()
        """Nodes that come after another one."""
        self._left = most_edges

    def find(self, first: Node, then: Node) -> Edge | None:
        """Return the edge from the one to the other."""
        return self._after.get(first, {}).get(then)

    def replace(self, first: Node, then: Node, edge: Edge) -> None:
        """Put this edge in the place of the one that is there."""
        self._after[first][then] = edge

    def add(self, first: Node, then: Node, edge: Edge) -> list[Edge]:
        """Add an edge that is not there yet, and return the shortest cycle that it closes.

        The cycle begins with this edge. It is empty if there is none, or if the graph is full.
        """
        if not self._left:
            return []
        self._left -= 1
        path = self._path(then, first) if first in self._reached else []
        self._after.setdefault(first, {})[then] = edge
        self._reached.add(then)
        return [edge, *(self._after[one][next_] for one, next_ in pairwise(path))] if path else []

    def _path(self, start: Node, end: Node) -> list[Node]:
        """Return the nodes of the shortest path, both ends included; empty if there is none."""
        came_from: dict[Node, Node | None] = {start: None}
        waiting = deque([start])
        while waiting:
            node = waiting.popleft()
            if node == end:
                path = [node]
                while (step := came_from[path[-1]]) is not None:
                    path.append(step)
                return path[::-1]
            for after in self._after.get(node, ()):
                if after not in came_from:
                    came_from[after] = node
                    waiting.append(after)
        return []
