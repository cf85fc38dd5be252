from __future__ import annotations

import pytest

from hms_addons.redaction import (
    HIDDEN,
    is_secret,
    redact_fields,
    redact_path,
    redact_query,
    redact_target,
    redact_value,
)


@pytest.mark.parametrize(
    "name",
    ["Authorization", "proxy-authorization", "Cookie", "Set-Cookie", "X-API-Key", "X-CSRF-Token"],
)
def test_secret_header(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["Content-Type", "X-Caller-Role", "Host", "ETag", "X-Request-ID"])
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
