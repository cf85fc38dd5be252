from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.test import tflow, tutils

from hms_addons.config.problems import Place
from hms_addons.config.route_table import RouteTable
from hms_addons.config.snapshot import Direction, Listener, Route, Snapshot, WeightedCluster
from hms_addons.errors import ConfigError
from hms_addons.exchange import Exchange
from hms_addons.http_message import BodyStream
from hms_addons.plugins import PluginManager

pytest.importorskip(
    "jsonschema_rs", reason="the plugin's own dependency: pip install jsonschema-rs"
)

from hms_plugin_openapi.plugin import OpenApi
from hms_plugin_openapi.templates import PathTable

if TYPE_CHECKING:
    from pathlib import Path

LISTENER = Listener(
    name="peers", host="127.0.0.1", port=1, direction=Direction.INBOUND, routes=RouteTable()
)
JSON = (b"Content-Type", b"application/json")
FORM = (b"Content-Type", b"application/x-www-form-urlencoded")

CLAIM = {
    "type": "object",
    "required": ["amount", "id"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "integer", "readOnly": True},
        "amount": {"type": "number", "exclusiveMinimum": 0},
        "email": {"type": "string", "format": "email"},
        "code": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Claim"}},
        "note": {"type": ["string", "null"]},
    },
}
DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "claims", "version": "1"},
    "servers": [{"url": "https://claims.example.org/api/"}],
    "paths": {
        "/claims": {
            "post": {
                "requestBody": {"$ref": "#/components/requestBodies/Claim"},
                "responses": {200: {"description": "ok"}},
            },
            "get": {
                "parameters": [
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}},
                    {"name": "sort", "in": "query", "schema": {"enum": ["up", "down"]}},
                    {
                        "name": "tag",
                        "in": "query",
                        "schema": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
                    },
                    {
                        "name": "ids",
                        "in": "query",
                        "style": "pipeDelimited",
                        "explode": False,
                        "schema": {"type": "array", "items": {"type": "integer"}},
                    },
                    {
                        "name": "where",
                        "in": "query",
                        "style": "deepObject",
                        "schema": {"type": "object", "properties": {"age": {"type": "integer"}}},
                    },
                    {
                        "name": "filter",
                        "in": "query",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    },
                    {"name": "X-Trace", "in": "header", "schema": {"type": "boolean"}},
                    {"name": "sid", "in": "cookie", "schema": {"type": "string", "minLength": 4}},
                ]
            },
        },
        "/claims/{id}": {
            "parameters": [{"$ref": "#/components/parameters/Id"}],
            "get": {},
            "put": {
                "parameters": [
                    {"name": "X-Version", "in": "header", "required": True, "schema": {}}
                ],
                "requestBody": {
                    "content": {
                        "application/*": {},
                        "application/x-www-form-urlencoded": {"schema": CLAIM},
                    }
                },
            },
        },
        "/claims/newest": {"get": {}},
        "/files/{name}.{kind}": {"get": {}},
    },
    "components": {
        "schemas": {"Claim": CLAIM},
        "parameters": {
            "Id": {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
        },
        "requestBodies": {
            "Claim": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Claim"}}},
            }
        },
    },
}


def snapshot(document: dict[str, Any] | None = None, **options: Any) -> Snapshot:
    service = {"document": document or DOCUMENT} | options
    written = {"services": {"claims-svc": service}}
    return Snapshot(version="1", source="test", plugins={"openapi": written})


def ask(
    plugin: OpenApi,
    current: Snapshot,
    method: str,
    target: str,
    *fields: tuple[bytes, bytes],
    body: bytes | BodyStream = b"",
    service: str = "claims-svc",
) -> Exchange:
    content = body if isinstance(body, bytes) else b""
    request = tutils.treq(
        method=method.encode(), path=target.encode(), content=content, headers=fields
    )
    exchange = Exchange(tflow.tflow(req=request), current, LISTENER, started=0.0)
    exchange.head = {name.lower(): value for name, value in fields}
    exchange.path, _, exchange.query = target.partition("?")
    exchange.route = Route(
        name="all", listener="peers", clusters=(WeightedCluster(cluster="a"),), service=service
    )
    if isinstance(body, BodyStream):
        exchange.body = body
    plugin.hms_authorize(exchange)
    return exchange


@pytest.fixture(scope="module")
def plugin() -> OpenApi:
    made = OpenApi()
    made.hms_configure(PLAIN)
    return made


PLAIN = snapshot()


def refused(exchange: Exchange) -> tuple[int, str]:
    assert exchange.failure is not None
    return exchange.failure.status, exchange.failure.detail


# -- paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/api/claims"),
        ("GET", "/api/claims/7"),
        ("HEAD", "/api/claims/7"),
        ("GET", "/api/claims/newest"),
        ("GET", "/api/files/a.b.pdf"),
    ],
)
def test_what_the_document_has_passes(plugin: OpenApi, method: str, target: str) -> None:
    assert ask(plugin, PLAIN, method, target).failure is None


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/claims", 404),
        ("GET", "/api/claim", 404),
        ("GET", "/apiclaims", 404),
        ("GET", "/api/claims/7/x", 404),
        ("GET", "/api/claims/", 404),
        ("GET", "/api/files/.pdf", 404),
        ("GET", "/api", 404),
        ("DELETE", "/api/claims", 405),
        ("POST", "/api/claims/newest", 405),
    ],
)
def test_what_it_does_not_have_is_refused_or_passed(
    plugin: OpenApi, method: str, target: str, status: int
) -> None:
    assert refused(ask(plugin, PLAIN, method, target))[0] == status
    other = OpenApi()
    lenient = snapshot(unknown_paths="pass")
    other.hms_configure(lenient)
    assert ask(other, lenient, method, target).failure is None


def test_a_405_names_the_methods(plugin: OpenApi) -> None:
    failure = ask(plugin, PLAIN, "DELETE", "/api/claims").failure
    assert failure is not None
    assert failure.headers == ((b"Allow", b"GET, POST"),)


def test_the_base_path_can_be_given() -> None:
    other, current = OpenApi(), snapshot(base_path="/v2")
    other.hms_configure(current)
    assert ask(other, current, "GET", "/v2/claims").failure is None
    assert refused(ask(other, current, "GET", "/api/claims"))[0] == 404


@given(st.lists(st.text("ab.-", min_size=1, max_size=4), min_size=1, max_size=4))
def test_what_is_made_from_a_template_is_found(parts: list[str]) -> None:
    template = "/" + "/".join(f"{{v{n}}}" for n in range(len(parts)))
    table = PathTable({template: "it", "/never": "no"})
    path = "/" + "/".join(parts)
    assert table.find(path) == ("it", {f"v{n}": part for n, part in enumerate(parts)})


def test_concrete_paths_come_before_variables_and_mixtures_between() -> None:
    paths = {name: name for name in ("/{a}/x", "/{a}/{b}", "/v/{b}", "/v/b{n}", "/v/x")}
    table = PathTable(paths)
    for path, winner in [
        ("/v/x", "/v/x"),
        ("/v/b1", "/v/b{n}"),
        ("/v/y", "/v/{b}"),
        ("/w/x", "/{a}/x"),
        ("/w/y", "/{a}/{b}"),
    ]:
        found = table.find(path)
        assert found is not None
        assert found[0] == winner


# -- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "limit=100",
        "sort=up",
        "tag=1&tag=2",
        "ids=1%7C2",
        "where[age]=7",
        "filter=%7B%22a%22:1%7D",
        "other=1",
    ],
)
def test_right_parameters_pass(plugin: OpenApi, query: str) -> None:
    assert ask(plugin, PLAIN, "GET", f"/api/claims?{query}").failure is None


@pytest.mark.parametrize(
    ("target", "fields", "where"),
    [
        ("/api/claims?limit=101", (), "query parameter 'limit': "),
        ("/api/claims?limit=many", (), "query parameter 'limit': "),
        ("/api/claims?limit=1&limit=2", (), "query parameter 'limit': "),
        ("/api/claims?limit=", (), "query parameter 'limit': "),
        ("/api/claims?sort=left", (), "query parameter 'sort': "),
        ("/api/claims?tag=1&tag=x", (), "query parameter 'tag': at /1: "),
        ("/api/claims?tag=1&tag=2&tag=3", (), "query parameter 'tag': "),
        ("/api/claims?ids=1|x", (), "query parameter 'ids': at /1: "),
        ("/api/claims?where[age]=old", (), "query parameter 'where': at /age: "),
        ("/api/claims?filter=[]", (), "query parameter 'filter': "),
        ("/api/claims?filter={", (), "query parameter 'filter': it is no JSON"),
        ("/api/claims", ((b"X-Trace", b"yes"),), "header parameter 'X-Trace': "),
        ("/api/claims", ((b"Cookie", b"a=b; sid=abc"),), "cookie parameter 'sid': "),
        ("/api/claims/seven", (), "path parameter 'id': "),
        # Which of two counts, services see differently.
        ("/api/claims?ids=x&ids=1", (), "query parameter 'ids': at /0: "),
        ("/api/claims?where[age]=old&where[age]=1", (), "query parameter 'where': at /age: "),
        ("/api/claims?filter=[]&filter={}", (), "query parameter 'filter': "),
        ('/api/claims?filter={"a":1,"a":2}', (), "query parameter 'filter': it is no JSON"),
        ("/api/claims", ((b"Cookie", b"sid=x; sid=abcd"),), "cookie parameter 'sid': "),
    ],
)
def test_wrong_parameters_are_named(
    plugin: OpenApi, target: str, fields: tuple[tuple[bytes, bytes], ...], where: str
) -> None:
    status, detail = refused(ask(plugin, PLAIN, "GET", target, *fields))
    assert status == 400
    assert f": {where}" in detail


def test_a_required_parameter_must_be_there(plugin: OpenApi) -> None:
    detail = refused(ask(plugin, PLAIN, "PUT", "/api/claims/1"))[1]
    assert detail == "PUT /claims/{id}: header parameter 'X-Version': it is missing"


def test_unknown_query_parameters_can_be_refused() -> None:
    other, current = OpenApi(), snapshot(unknown_query="refuse")
    other.hms_configure(current)
    assert ask(other, current, "GET", "/api/claims?limit=1&where[age]=1").failure is None
    assert "'debug'" in refused(ask(other, current, "GET", "/api/claims?debug=1"))[1]


def test_very_many_parameters_are_refused(plugin: OpenApi) -> None:
    target = "/api/claims?" + "&".join("a=1" for _ in range(1001))
    assert refused(ask(plugin, PLAIN, "GET", target))[0] == 400


# -- bodies ----------------------------------------------------------------------------------------


def post(plugin: OpenApi, body: Any, *fields: tuple[bytes, bytes]) -> Exchange:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(plugin, PLAIN, "POST", "/api/claims", *(fields or (JSON,)), body=content)


def test_a_body_where_none_is_taken_is_refused(plugin: OpenApi) -> None:
    status, detail = refused(ask(plugin, PLAIN, "GET", "/api/claims", JSON, body=b"{}"))
    assert (status, detail) == (400, "GET /claims: body: it takes none")


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json; charset=utf-16",
        b"application/json; charset=utf-8; Charset = 'utf-7'",
        b"application/json, text/plain",
    ],
)
def test_a_content_type_that_can_be_read_in_two_ways_is_refused(
    plugin: OpenApi, kind: bytes
) -> None:
    assert refused(post(plugin, {"amount": 5}, (b"Content-Type", kind)))[0] == 415
    utf8 = (b"Content-Type", b'application/json; charset="UTF-8"')
    assert post(plugin, {"amount": 5}, utf8).failure is None


def test_a_right_body_passes_without_what_is_read_only(plugin: OpenApi) -> None:
    body = {"amount": 5, "email": "ann@example.org", "parts": [{"amount": 1.5}], "note": None}
    assert post(plugin, body).failure is None


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "it is missing"),
        (b"{", "it is no JSON"),
        (b'{"amount": NaN}', "it is no JSON"),
        (b'{"amount": 0, "amount": 5}', "a key twice"),
        (b"[" * 100_000, "it is no JSON"),
        ({}, '"amount" is a required property'),
        ({"amount": 0}, "at /amount: "),
        ({"amount": "secret"}, "at /amount: the value is not of type"),
        ({"amount": 1, "parts": [{"amount": 1}, {"amount": -1}]}, "at /parts/1/amount: "),
        ({"amount": 1, "email": "secret"}, "at /email: "),
        ({"amount": 1, "code": "secret"}, "at /code: "),
        ({"amount": 1, "other": "secret"}, "('other' was unexpected)"),
    ],
)
def test_a_wrong_body_is_refused_with_its_place_and_without_its_values(
    plugin: OpenApi, body: Any, why: str
) -> None:
    status, detail = refused(post(plugin, body))
    assert status == 400
    assert detail.startswith("POST /claims: body: ")
    assert why in detail
    assert "secret" not in detail


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ((b"Content-Type", b"text/plain"),),
        ((b"Content-Type", b"application/json"), (b"Content-Type", b"text/plain")),
        (JSON, (b"Content-Encoding", b"gzip")),
    ],
)
def test_other_content_types_and_codings_are_refused(
    plugin: OpenApi, fields: tuple[tuple[bytes, bytes], ...]
) -> None:
    exchange = ask(plugin, PLAIN, "POST", "/api/claims", *fields, body=b'{"amount": 1}')
    assert refused(exchange)[0] == 415


def test_a_form_is_read_by_its_schema(plugin: OpenApi) -> None:
    version = (b"X-Version", b"1")
    for body, right in ((b"amount=5", True), (b"amount=x", False), (b"amount=5&amount=6", False)):
        exchange = ask(plugin, PLAIN, "PUT", "/api/claims/1", version, FORM, body=body)
        assert (exchange.failure is None) is right


def test_of_other_types_the_name_counts(plugin: OpenApi) -> None:
    version = (b"X-Version", b"1")
    kind = (b"Content-Type", b"application/pdf; q=1")
    assert ask(plugin, PLAIN, "PUT", "/api/claims/1", version, kind, body=b"x").failure is None


def test_a_body_that_streams_is_refused_or_passed(plugin: OpenApi) -> None:
    body = BodyStream(lambda: None, lambda: None)
    assert refused(ask(plugin, PLAIN, "POST", "/api/claims", JSON, body=body))[0] == 413
    other, current = OpenApi(), snapshot(streaming="pass")
    other.hms_configure(current)
    assert ask(other, current, "POST", "/api/claims", JSON, body=body).failure is None
    assert refused(ask(other, current, "POST", "/api/claims", body=body))[0] == 415


# -- version 3.0 -----------------------------------------------------------------------------------


def test_the_schemas_of_3_0_are_understood() -> None:
    document = {
        "openapi": "3.0.3",
        "paths": {
            "/x": {
                "post": {
                    "requestBody": {
                        "content": {
                            "application/json": {
                                "schema": {
                                    "type": "object",
                                    "properties": {
                                        "n": {
                                            "type": "number",
                                            "minimum": 0,
                                            "exclusiveMinimum": True,
                                        },
                                        "s": {"type": "string", "enum": ["a"], "nullable": True},
                                    },
                                }
                            }
                        }
                    }
                }
            }
        },
    }
    other, current = OpenApi(), snapshot(document)
    other.hms_configure(current)
    for body, right in (
        (b'{"n": 1, "s": null}', True),
        (b'{"n": 0}', False),
        (b'{"n": null}', False),
        (b'{"s": "b"}', False),
    ):
        exchange = ask(other, current, "POST", "/x", JSON, body=body)
        assert (exchange.failure is None) is right


# -- configuration ---------------------------------------------------------------------------------


def with_parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    return {"openapi": "3.1.0", "paths": {"/x": {"get": {"parameters": [parameter]}}}}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"swagger": "2.0"}, "no OpenAPI document of version 3.0 or 3.1"),
        ({"openapi": "3.1.0", "paths": []}, "/paths: expected an object"),
        ({"openapi": "3.1.0", "x": {"$ref": "other.yaml#/a"}}, "leads out of the document"),
        ({"openapi": "3.1.0", "x": {"$ref": "#/none"}}, "nothing is there"),
        (
            {"openapi": "3.1.0", "paths": {"/x": {"$ref": "#/paths/~1x"}}},
            "round in circles",
        ),
        (
            with_parameter({"name": "a", "in": "query", "schema": {"type": "nonsense"}}),
            "/paths/~1x/get/parameters/0/schema",
        ),
        (
            with_parameter({"name": "a", "in": "query", "schema": {"pattern": "(?=a)b"}}),
            "/paths/~1x/get/parameters/0/schema",
        ),
        (with_parameter({"name": "a", "in": "path", "style": "matrix"}), "'matrix' in a path"),
        (with_parameter({"name": "a", "in": "body"}), "a parameter needs"),
    ],
)
def test_a_document_that_cannot_be_checked_is_refused_with_its_place(
    document: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=r"plugins\.openapi\.services\.claims-svc: ") as caught:
        OpenApi().hms_configure(snapshot(document))
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("service", "key"),
    [
        ({}, "give either file or document"),
        ({"file": "a", "document": {}}, "give either file or document"),
        ({"file": "/nowhere.yaml"}, r"claims-svc.file: /nowhere.yaml: No such file"),
        ({"document": {}, "base_path": "v1"}, "claims-svc.base_path: a path begins with '/'"),
        ({"document": {}, "unknown_paths": "ignore"}, "claims-svc.unknown_paths"),
        ({"fiel": "a"}, "claims-svc.fiel: there is no such option"),
    ],
)
def test_wrong_options_are_refused_by_name(service: dict[str, Any], key: str) -> None:
    written = {"services": {"claims-svc": service}}
    with pytest.raises(ConfigError, match=key):
        OpenApi().hms_configure(Snapshot(version="1", source="test", plugins={"openapi": written}))


def test_a_file_beside_the_configuration_is_found_and_compiled_once(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text("openapi: 3.1.0\npaths: {/x: {get: {}}}\n")
    written = {"services": {"claims-svc": {"file": "claims.yaml"}}}
    place = Place(str(tmp_path / "mesh.yaml"), 1, 1)

    def read() -> Snapshot:
        return Snapshot(
            version="1",
            source="test",
            plugins={"openapi": json.loads(json.dumps(written))},
            places={"plugins.openapi": place},
        )

    plugin = OpenApi()
    current = read()
    plugin.hms_configure(current)
    first = plugin._known[0].apis["claims-svc"]
    plugin.hms_configure(read())
    assert plugin._known[0].apis["claims-svc"] is first
    assert ask(plugin, current, "GET", "/x").failure is None
    (tmp_path / "claims.yaml").write_text("openapi: 3.1.0\npaths: {/y: {get: {}}}\n")
    newest = read()
    plugin.hms_configure(newest)
    assert ask(plugin, newest, "GET", "/x").failure is not None
    (tmp_path / "claims.yaml").write_text("openapi: [\n")
    with pytest.raises(ConfigError, match="neither JSON nor YAML"):
        plugin.hms_configure(read())


def test_other_services_are_not_checked(plugin: OpenApi) -> None:
    assert ask(plugin, PLAIN, "GET", "/any", service="auth-svc").failure is None


def test_it_costs_nothing_where_nobody_has_configured_it() -> None:
    plugins = PluginManager()
    plugins.register(OpenApi(), "openapi")
    empty = Snapshot(version="1", source="test")
    plugins.configure(empty, None)
    assert "openapi" not in repr(plugins.compile_chain(Random(1), snapshot=empty))
    plugins.configure(PLAIN, empty)
    assert "openapi" in repr(plugins.compile_chain(Random(1), snapshot=PLAIN))


# -- documents that are none -----------------------------------------------------------------------


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def with_schema(schema: Any, **schemas: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {
        "openapi": "3.1.0",
        "paths": {"/x": {"post": {"requestBody": {"content": content}}}},
        "components": {"schemas": schemas},
    }


@pytest.mark.parametrize(
    "document",
    [
        {"openapi": "3.1.0", "paths": {"/x": {"get": {"parameters": None}}}},
        {"openapi": "3.1.0", "paths": {"/x": {"get": {"parameters": "abc"}}}},
        {
            "openapi": "3.1.0",
            "paths": {
                "/x": {
                    "get": {"parameters": [{"name": "a", "in": "query", "content": {"x/json": 5}}]}
                }
            },
        },
        with_schema({"allOf": "x"}),
        with_schema({"type": [5]}),
        with_schema({"$id": "http://127.0.0.1:9/x", "properties": {}}),
        with_schema({"$dynamicRef": "file:///etc/passwd"}),
        {"openapi": "3.1.0", "paths": {(1, 2): {}}},
        *(with_schema(nested(depth)) for depth in (400, 900, 20_000)),
    ],
)
def test_a_document_that_cannot_be_used_is_refused_whatever_is_wrong(
    document: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError, match=r"^plugins\.openapi\.services\.claims-svc: "):
        OpenApi().hms_configure(snapshot(document))


def test_servers_that_are_none_give_no_base_path() -> None:
    OpenApi().hms_configure(snapshot({"openapi": "3.1.0", "servers": ["x"], "paths": {}}))


def test_schemas_that_refer_to_themselves_in_many_ways_are_read_at_once() -> None:
    itself = {"$ref": "#/components/schemas/A"}
    OpenApi().hms_configure(snapshot(with_schema(itself, A={"anyOf": [itself] * 9})))


@pytest.mark.parametrize(
    "text",
    [
        "x0: &a0 [x, x, x, x, x, x, x, x]\n"
        + "".join(f"x{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 12)),
        "x: &a [*a]\n",
    ],
)
def test_aliases_that_stand_for_more_than_fits_into_memory_are_refused(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "bomb.yaml").write_text(f"openapi: 3.1.0\npaths: {{}}\n{text}")
    written = {"services": {"claims-svc": {"file": str(tmp_path / "bomb.yaml")}}}
    with pytest.raises(ConfigError, match="too large, or its aliases go round"):
        OpenApi().hms_configure(Snapshot(version="1", source="t", plugins={"openapi": written}))


def test_what_is_no_file_is_not_read() -> None:
    written = {"services": {"claims-svc": {"file": "/dev/zero"}}}
    with pytest.raises(ConfigError, match="/dev/zero: is no file"):
        OpenApi().hms_configure(Snapshot(version="1", source="t", plugins={"openapi": written}))
