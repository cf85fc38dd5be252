from __future__ import annotations

from hms_addons.addons.rewrites import Rewrites
from hms_addons.config.path_rewrite import PathRewrite, Rewrite
from hms_addons.config.shaping import Shaping
from tests.fakes.configs import snapshot_of
from tests.fakes.exchange import make_exchange, make_route, sent

STRIP = PathRewrite(matched="/a", replacement="")


def test_the_path_is_rewritten_and_the_query_kept() -> None:
    route = make_route(shaping=Shaping(rewrite=Rewrite(path=STRIP)))
    exchange = make_exchange("/a/b?x=1", route=route)
    Rewrites().hms_authorize(exchange)
    assert exchange.path == "/b"
    assert exchange.target == b"/b?x=1"
    assert exchange.flow.request.path == "/b?x=1"


def test_the_host_is_rewritten_in_its_place() -> None:
    route = make_route(shaping=Shaping(rewrite=Rewrite(host=b"other.test:81")))
    exchange = make_exchange("/a", headers=[("X-A", "1")], route=route)
    exchange.vouched = exchange.fields
    Rewrites().hms_authorize(exchange)
    assert exchange.fields == ((b"Host", b"other.test:81"), (b"X-A", b"1"))
    assert exchange.vouched is exchange.fields
    assert sent(exchange, "host") == ["other.test:81"]
    assert exchange.head[b"host"] == b"auth-svc.svc"  # for conditions: as the caller sent it
    assert exchange.path == "/a"


def test_without_a_rewrite_nothing_changes() -> None:
    for shaping in (None, Shaping()):
        exchange = make_exchange("/a?x", route=make_route(shaping=shaping))
        before = exchange.fields
        Rewrites().hms_authorize(exchange)
        assert (exchange.path, exchange.fields) == ("/a", before)


def test_it_is_idle_where_no_route_rewrites() -> None:
    text = """
        listeners: [{{name: l, port: 1, routes: [{{action: {{cluster: c{}}}}}]}}]
        clusters: [{{name: c}}]
        """
    rewrites = Rewrites()
    assert rewrites.hms_idle_hooks(snapshot_of(text.format(""))) == ("hms_authorize",)
    assert rewrites.hms_idle_hooks(snapshot_of(text.format(", rewrite: {path: /x}"))) == ()
