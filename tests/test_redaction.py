from __future__ import annotations

import pytest

from hms_addons.redaction import (
    HIDDEN,
    hide_in_url,
    hide_in_value,
    is_secret,
    redact_fields,
    redact_path,
    redact_query,
    redact_target,
    redact_value,
)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "proxy-authorization",
        "Cookie",
        "Set-Cookie",
        "X-API-Key",
        "X-CSRF-Token",
        "X-Auth-Key",
        "X-Auth",
        "Ocp-Apim-Subscription-Key",
        "x-functions-key",
    ],
)
def test_secret_header(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "Content-Type",
        "X-Caller-Role",
        "Host",
        "ETag",
        "X-Request-ID",
        "Sec-WebSocket-Key",
        "Idempotency-Key",
        "WWW-Authenticate",
        "X-Author",
    ],
)
def test_header_without_secrets(name: str) -> None:
    assert not is_secret(name)


def test_fields_keep_their_order_and_their_names() -> None:
    fields = (
        (b"Host", b"a"),
        (b"Authorization", b"Bearer abc"),
        (b"Set-Cookie", b"sid=1"),
        (b"set-cookie", b"lang=en"),
    )
    assert redact_fields(fields) == (
        (b"Host", b"a"),
        (b"Authorization", b"[redacted]"),
        (b"Set-Cookie", b"[redacted]"),
        (b"set-cookie", b"[redacted]"),
    )


JWT = b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqYW5lIn0.sig-1"


def test_secrets_in_urls() -> None:
    assert redact_query("id=7&access_token=abc&x=1") == "id=7&access_token=[redacted]&x=1"
    assert redact_query("pass%77ord=abc&%74oken=d&x%20=%20") == (
        "pass%77ord=[redacted]&%74oken=[redacted]&x%20=%20"
    )
    assert redact_target(b"/a?code=xyz") == b"/a?code=[redacted]"
    assert redact_target(b"/a;code=xyz") == b"/a;code=xyz"
    assert redact_target(b"/t/" + JWT + b"/x?a=1") == b"/t/[redacted]/x?a=1"
    assert redact_path(f"/t/{JWT.decode()}/\udcffx") == "/t/[redacted]/\udcffx"
    assert redact_target(b"/\xff?x=\xff") == b"/\xff?x=\xff"
    assert redact_fields(((b"Location", b"/in?token=t&a=1"),)) == (
        (b"Location", b"/in?token=[redacted]&a=1"),
    )


def test_a_jwt_is_a_secret_in_any_header() -> None:
    fields = ((b"X-Identity", b"jwt " + JWT),)
    assert redact_fields(fields) == ((b"X-Identity", b"jwt [redacted]"),)
    assert HIDDEN.search(b"a=[redacted-0123456789abcdef]")
    assert HIDDEN.search(redact_fields(fields)[0][1])


def test_values_of_fields() -> None:
    assert redact_value("Authorization", "Bearer abc") == "[redacted]"
    assert redact_value("Referer", "http://a/?token=t\xff") == "http://a/?token=[redacted]"
    assert redact_value("Accept", "*/*?token=t") == "*/*?token=t"


T = JWT.decode()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"/a?assertion={T}&b=1", "/a?assertion=[redacted]&b=1"),
        (f"/a?x={T}&b=1", "/a?x=[redacted]&b=1"),
        ("/a?SAMLResponse=abc&SAMLRequest=d", "/a?SAMLResponse=[redacted]&SAMLRequest=[redacted]"),
        ("/cb#access_token=abc&state=1", "/cb#access_token=[redacted]&state=1"),
        ("/?a=1#/in?token=abc&b=2", "/?a=1#/in?token=[redacted]&b=2"),
        ("https://u:p@h/a?b=1", "https://[redacted]@h/a?b=1"),
        ("//u:p@h/", "//[redacted]@h/"),
        ("/a?next=https://u:p@h/&b=c@d", "/a?next=https://[redacted]@h/&b=c@d"),
        ("/users/@me?at=a@b#top", "/users/@me?at=a@b#top"),
        ("https://h:1/a@b?c=d", "https://h:1/a@b?c=d"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    assert redact_target(url.encode()).decode() == shown
    for name in ("Location", "Referer", "X-Original-URL", "X-Forwarded-Uri"):
        assert redact_value(name, url) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        (
            "Link",
            "<https://h/?token=a&b=1>; rel=next, </x?code=c>; rel=last",
            "<https://h/?token=[redacted]&b=1>; rel=next, </x?code=[redacted]>; rel=last",
        ),
        ("Link", f"</x>; title={T}", "</x>; title=[redacted]"),
        ("Refresh", "5; url=/in?token=abc&b=1", "5; url=/in?token=[redacted]&b=1"),
        ("Refresh", "0;URL='/in#token=abc'", "0;URL='/in#token=[redacted]'"),
        ("Refresh", "5; /in?token=abc", "5; /in?token=[redacted]"),
        ("Refresh", "5", "5"),
    ],
)
def test_urls_within(name: str, value: str, shown: str) -> None:
    assert redact_value(name, value) == shown


def test_a_query_has_no_jwt_left_and_may_be_of_any_characters() -> None:
    assert redact_query(f"x={T}&é=\udcff") == "x=[redacted]&é=\udcff"


def test_further_names_are_told() -> None:
    also = frozenset({b"pin-no", b"x-note"})
    assert (
        hide_in_url(b"/a?Pin%2Dno=1&b=2", lambda _: b"*", frozenset({b"pin-no"}))
        == b"/a?Pin%2Dno=*&b=2"
    )
    assert hide_in_url(b"/a?x-note=1&b=2", lambda _: b"*", also) == b"/a?x-note=*&b=2"
    assert hide_in_value(b"x-note", b"1", lambda _: b"*", also) == b"*"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"id-{T}", "id-[redacted]"),
        (f"{T},{T}", "[redacted],[redacted]"),
        (f"eyJ.x {T}", "eyJ.x [redacted]"),
        ("eyJhbGciOiJIUzI1NiJ9", "eyJhbGciOiJIUzI1NiJ9"),
        ("eyJhbGciOiJIUzI1NiJ9.abc", "eyJhbGciOiJIUzI1NiJ9.abc"),
        # Linear: from each of them anew, it would take many seconds.
        ("eyJ" * 40_000 + ".a", "eyJ" * 40_000 + ".a"),
    ],
)
def test_what_is_a_jwt(text: str, shown: str) -> None:
    assert redact_path(text) == shown
