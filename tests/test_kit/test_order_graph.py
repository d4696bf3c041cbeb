"""The graph of lock orders, against a search of all paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_distlock.test.order_graph import OrderGraph

pytestmark = pytest.mark.once

Edge = tuple[int, int]
nodes = st.integers(0, 6)
edges_of_a_run = st.lists(st.tuples(nodes, nodes).filter(lambda edge: edge[0] != edge[1]))


def reachable(edges: set[Edge], start: int, steps: int) -> set[int]:
    """Return what can be reached from a node in this many steps at most."""
    found = {start}
    for _ in range(steps):
        found |= {then for first, then in edges if first in found}
    return found


@given(edges_of_a_run)
def test_a_cycle_is_found_by_the_edge_that_closes_it(edges: list[Edge]) -> None:
    """The shortest one, which begins with that edge; and none where there is none."""
    graph: OrderGraph[int, Edge] = OrderGraph()
    known: set[Edge] = set()
    for first, then in dict.fromkeys(edges):
        cycle = graph.add(first, then, (first, then))
        if cycle:
            assert cycle[0] == (first, then)
            assert {*cycle[1:]} <= known
            assert [edge[1] for edge in cycle] == [edge[0] for edge in cycle[1:] + cycle[:1]]
            assert first not in reachable(known, then, len(cycle) - 2)
        else:
            assert first not in reachable(known, then, 7)
        known.add((first, then))
        assert graph.find(first, then) == (first, then)


def test_a_full_graph_takes_no_more_edges() -> None:
    """The memory that a run takes is bounded."""
    graph: OrderGraph[int, str] = OrderGraph(most_edges=1)
    assert graph.add(1, 2, "first") == []
    assert graph.add(2, 1, "second") == []
    assert graph.find(2, 1) is None
    graph.replace(1, 2, "third")
    assert graph.find(1, 2) == "third"
