from __future__ import annotations

from typing import Any

import pytest

from hms_addons.config.local_answers import Redirect
from hms_addons.config.path_rewrite import PathRewrite


def location(host: str = "gateway.test", asked: str = "/a", query: str = "", **rule: Any) -> str:
    return Redirect(**rule).location("http", host, 15001, asked, query)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [  # The port is the rule's, else the named scheme's, else the listener's (Gateway API).
        ({}, "http://gateway.test:15001/a"),
        ({"host": "example.org"}, "http://example.org:15001/a"),
        ({"port": 80}, "http://gateway.test/a"),
        ({"port": 8083}, "http://gateway.test:8083/a"),
        ({"scheme": "https"}, "https://gateway.test/a"),
        ({"scheme": "https", "port": 443}, "https://gateway.test/a"),
        ({"scheme": "https", "port": 8443}, "https://gateway.test:8443/a"),
        ({"scheme": "http", "port": 443}, "http://gateway.test:443/a"),
        ({"path": PathRewrite(replacement="/b")}, "http://gateway.test:15001/b"),
        ({"path": PathRewrite(matched="/a", replacement="")}, "http://gateway.test:15001/"),
    ],
)
def test_location(rule: dict[str, Any], expected: str) -> None:
    assert location(**rule) == expected


def test_the_port_that_the_caller_used_is_kept_with_his_host_only() -> None:
    assert location("shop.test:8080") == "http://shop.test:8080/a"
    assert Redirect(host="b.test").location("http", "shop.test:8080", 15001, "/", "") == (
        "http://b.test:15001/"
    )
    assert location("[::1]:81") == "http://[::1]:81/a"
    assert location("[::1]") == "http://[::1]:15001/a"


def test_the_query_is_kept() -> None:
    assert location(query="x=1&y") == "http://gateway.test:15001/a?x=1&y"


def test_the_asterisk_leads_to_the_root() -> None:
    assert location(asked="*") == "http://gateway.test:15001/"


def test_without_any_host_the_location_is_relative() -> None:
    assert location("", query="b") == "/a?b"
    assert Redirect(host="b.test").location("http", "", 80, "/a", "") == "http://b.test/a"


def test_an_unknown_listener_port_is_left_out() -> None:
    assert Redirect().location("http", "a.test", None, "/", "") == "http://a.test/"
