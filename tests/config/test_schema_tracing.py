from __future__ import annotations

import pytest

from tests.fakes.configs import errors_of, snapshot_of

URL = "http://127.0.0.1:4318"


def test_there_is_none_unless_it_is_asked_for() -> None:
    assert snapshot_of("").tracing is None


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("{}", "tracing", "the key 'otlp' is missing"),
        ("{otlp: 127.0.0.1}", "tracing.otlp", "expected a URL such as"),
        ("{otlp: 'ftp://a'}", "tracing.otlp", "expected a URL such as"),
        ("{otlp: 'http://u:p@a'}", "tracing.otlp", "no user, query or fragment"),
        ("{otlp: 'http://a:4317'}", "tracing.otlp", "4317 is the port of OTLP over gRPC"),
        (f"{{otlp: '{URL}', sample: 2}}", "tracing.sample", ""),
        (f"{{otlp: '{URL}', sample: -1}}", "tracing.sample", ""),
        (f"{{otlp: '{URL}', timeout: 0}}", "tracing.timeout", ""),
        (f"{{otlp: '{URL}', colour: red}}", "tracing.colour", ""),
        (f"{{otlp: '{URL}', headers: {{'a b': x}}}}", "tracing.headers", ""),
        (
            f"{{otlp: '{URL}', headers: {{Authorization: Bearer x}}}}",
            "tracing.headers.Authorization",
            "looks like a secret, which a configuration must not hold",
        ),
        (
            f"{{otlp: '{URL}', headers: {{X-Api-Key: x}}}}",
            "tracing.headers.X-Api-Key",
            "{env: HMS_OTLP_SECRET}",
        ),
        (
            f"{{otlp: '{URL}', headers: {{X-A: {{env: not a name}}}}}}",
            "tracing.headers.X-A.env",
            "the name of an environment variable",
        ),
        (
            f"{{otlp: '{URL}', headers: {{X-A: {{env: A, value: b}}}}}}",
            "tracing.headers.X-A",
            "give its value, or env",
        ),
        (f"{{otlp: '{URL}', headers: {{X-A: {{}}}}}}", "tracing.headers.X-A", "give its value"),
        (
            f"{{otlp: '{URL}', headers: {{X-A: 'ä'}}}}",
            "tracing.headers.X-A.value",
            "printable ASCII",
        ),
        (
            f"{{otlp: '{URL}', headers: {{Host: a}}}}",
            "tracing.headers.Host",
            "the exporter's own to set",
        ),
        (
            f"{{otlp: '{URL}', headers: {{X-A: a, x-a: b}}}}",
            "tracing.headers.x-a",
            "is here twice",
        ),
        (f"{{otlp: '{URL}', resource: {{a: [1]}}}}", "tracing.resource.a", "expected a text"),
        (f"{{otlp: '{URL}', resource: {{a: {'x' * 1025}}}}}", "tracing.resource.a", "1024"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, place: str, told: str) -> None:
    (error,) = errors_of(f"tracing: {text}")
    assert error.startswith("1.yaml:1:")
    assert place in error
    assert told in error
