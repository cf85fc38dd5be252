from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.route_match import RouteMatch, ValueMatch
from hms_addons.config.route_table import RouteTable
from hms_addons.config.snapshot import Route, WeightedCluster

if TYPE_CHECKING:
    from collections.abc import Sequence

SEGMENTS = ["", "a", "ab", "b", "c"]
HOSTS = ["x.y", "y", "z.x.y"]

paths = st.lists(st.sampled_from(SEGMENTS), max_size=4).map(
    lambda parts: "/" + "/".join(part for part in parts if part)
)
fields: st.SearchStrategy[dict[bytes, bytes]] = st.fixed_dictionaries(
    {},
    optional={
        b"host": st.sampled_from([b"x.y", b"X.Y:80", b"y", b"z.x.y", b"q"]),
        b"h": st.sampled_from([b"1", b"2"]),
    },
)


@st.composite
def route_matches(draw: st.DrawFn) -> RouteMatch:
    kind = draw(st.sampled_from(["exact", "prefix", "regex", "any"]))
    path: dict[str, Any] = {}
    if kind == "regex":
        path["regex"] = re.compile(draw(st.sampled_from(["/a.*", "/.*b", "/[ab]", ".*"])))
    elif kind == "exact":
        path["exact"] = draw(paths)
    elif kind == "prefix":
        path["prefix"] = draw(paths.filter(lambda value: value != "/"))
    return RouteMatch(
        **path,
        hosts=tuple(draw(st.lists(st.sampled_from([*HOSTS, "*.y", "*.x.y"]), max_size=2))),
        methods=draw(st.sampled_from([frozenset(), frozenset({"GET"}), frozenset({"PUT"})])),
        headers=draw(st.sampled_from([(), (ValueMatch(name="h", exact="1"),)])),
        query=draw(st.sampled_from([(), (ValueMatch(name="q", present=True),)])),
    )


def route(name: str) -> Route:
    return Route(name=name, listener="l", clusters=(WeightedCluster(cluster="c"),), service="c")


def table(matches: Sequence[RouteMatch]) -> RouteTable:
    return RouteTable((match, route(str(n))) for n, match in enumerate(matches))


@given(
    st.lists(route_matches(), max_size=12),
    paths,
    st.sampled_from(["", "q", "q=1&r=2"]),
    st.sampled_from(["GET", "PUT"]),
    fields,
)
def test_the_index_finds_what_a_walk_in_order_finds(
    matches: list[RouteMatch], path: str, query: str, method: str, head: dict[bytes, bytes]
) -> None:
    routes = table(matches)
    first = next(
        (str(n) for n, match in enumerate(matches) if match.matches(path, query, method, head)),
        None,
    )
    found = routes.match(path, query, method, head)
    assert (found.name if found else None) == first
    explained = list(routes.explain(path, query, method, head))
    assert [item.route.name for item in explained] == [str(n) for n in range(len(matches))]
    taken = [item.route.name for item in explained if item.reason is None]
    assert taken == ([] if first is None else [first])


def test_routes_of_one_drawer_are_tried_in_order() -> None:
    routes = table(
        [
            RouteMatch(prefix="/a", methods=frozenset({"PUT"})),
            RouteMatch(prefix="/a"),
            RouteMatch(prefix="/a", methods=frozenset({"GET"})),
        ]
    )
    assert routes.match("/a", "", "GET", {}).name == "1"  # type: ignore[union-attr]
    assert routes.match("/a", "", "PUT", {}).name == "0"  # type: ignore[union-attr]


def test_an_earlier_route_for_any_path_wins_over_a_closer_one() -> None:
    routes = table([RouteMatch(), RouteMatch(exact="/a"), RouteMatch(exact="/a", hosts=("h",))])
    assert routes.match("/a", "", "GET", {b"host": b"h"}).name == "0"  # type: ignore[union-attr]


def test_asterisk_is_below_no_prefix() -> None:
    assert table([RouteMatch(prefix="/a")]).match("*", "", "OPTIONS", {}) is None
    assert table([RouteMatch()]).match("*", "", "OPTIONS", {}) is not None


def test_a_look_up_among_thousands_looks_at_few() -> None:
    """What 5,000 routes cost is counted, not timed: conditions that were asked."""
    asked = []

    class Asked(RouteMatch):
        def rest_matches(self, *args: Any) -> bool:
            asked.append(self)
            return super().rest_matches(*args)

    get = frozenset({"GET"})
    routes = table(
        [Asked(prefix=f"/r{n}", methods=get) for n in range(2500)]
        + [Asked(prefix="/all", hosts=(f"h{n}",), methods=get) for n in range(2500)]
    )
    assert routes.match("/r2499/x/y", "", "GET", {}).name == "2499"  # type: ignore[union-attr]
    assert routes.match("/all", "", "GET", {b"host": b"h2499"}).name == "4999"  # type: ignore[union-attr]
    assert len(asked) == 2
    assert routes.match("/r9999", "", "GET", {}) is None
    assert len(asked) == 2


def test_repr_names_the_first_routes() -> None:
    assert repr(table([RouteMatch()] * 5)) == "<RouteTable 5 routes: 0, 1, 2, …>"
    assert len(table([RouteMatch()] * 5)) == 5
    assert [r.name for r in table([RouteMatch()] * 2)] == ["0", "1"]
