from __future__ import annotations

import pytest

from tests.fakes.configs import errors_of, load_texts

KEYS = "hs256_secret_env, public_key_file, jwks_file, jwks_uri"


def error(text: str) -> str:
    """The one error of a text written on one line, without its place."""
    (found,) = errors_of(text)
    return found.partition(" ")[2]


@pytest.mark.parametrize(
    "text",
    [
        "governance: {url: 'http://127.0.0.1:9100/gov/'}",
        "governance: {url: 'https://gov', ttl: 1s, max_stale: 0, on_failure: open, timeout: 1s}",
        "rbac: {providers: [{name: p, jwks_file: f, algorithms: [ES256, EdDSA]}]}",
        "rbac: {providers: [{name: p, hs256_secret_env: S, audiences: one}]}",
        "rbac: {policies: [{name: p, action: DENY}]}",
        "rbac: {policies: [{name: p, action: ALLOW, paths: ['*', /a, /a/*, '/a*'], callers: ['*']}]}",
        "headers: {role: X-Rolle}",
        "rbac: {providers: [{name: p, jwks_uri: 'https://id.example/keys?p=one', jwks_ca_file: c}]}",
        "rbac: {providers: [{name: p, jwks_uri: 'http://127.0.0.1:1/', forward: false}]}",
        "rbac: {providers: [{name: p, jwks_file: f}, {name: q, jwks_file: f, issuer: q}]}",
    ],
)
def test_accepted(text: str) -> None:
    assert load_texts(text).snapshot is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("governance: {}", "governance: the key 'url' is missing"),
        (
            "governance: {url: 127.0.0.1}",
            "governance.url: expected a URL such as http://127.0.0.1:9100, not '127.0.0.1'",
        ),
        (
            "governance: {url: 'http://user:pw@gov'}",
            "governance.url: a URL here has no user, query or fragment",
        ),
        (
            "governance: {url: 'http://gov:99999'}",
            "governance.url: 'http://gov:99999' is not a URL: Port out of range 0-65535",
        ),
        (
            "governance: {url: 'http://gov', on_failure: opn}",
            "governance.on_failure: expected open or closed, not 'opn' (did you mean open?)",
        ),
        (
            "governance: {url: 'http://gov', ttl: 0}",
            "governance.ttl: must be more than 0",
        ),
        (
            "rbac: {providers: [{name: p, jwks_uri: 'ftp://id'}]}",
            (
                "rbac.providers[0].jwks_uri: expected a URL such as http://127.0.0.1:9100, not "
                "'ftp://id'"
            ),
        ),
        (
            "rbac: {providers: [{name: p, jwks_uri: 'https://u:pw@id/'}]}",
            "rbac.providers[0].jwks_uri: a URL here has no user, query or fragment",
        ),
        (
            "rbac: {providers: [{name: p, jwks_uri: 'https://id/?a b'}]}",
            "rbac.providers[0].jwks_uri: 'https://id/?a b' is not a URL: its query cannot be sent",
        ),
        (
            "rbac: {providers: [{name: p, jwks_uri: 'https://id/', algorithms: [HS256]}]}",
            (
                "rbac.providers[0].algorithms[0]: HS256 does not go with jwks_uri; use RS256, RS384, "
                "RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA"
            ),
        ),
        (
            "rbac: {providers: [{name: p, jwks_uri: 'http://id/', jwks_ca_file: c}]}",
            (
                "rbac.providers[0].jwks_ca_file: authorities are asked about only with an https:// "
                "jwks_uri"
            ),
        ),
        (
            "rbac: {providers: [{name: p, jwks_file: f, issuer: i}, {name: q, jwks_file: f, issuer: i}]}",
            (
                "rbac.providers[1].issuer: the provider p has this issuer too: whose a token is would be "
                "left to chance"
            ),
        ),
        (
            "rbac: {providers: [{name: p, jwks_file: f}, {name: q, jwks_file: f}]}",
            (
                "rbac.providers[1].name: the provider p names no issuer either: whose a token is would be "
                "left to chance"
            ),
        ),
        (
            "rbac: {providers: [{name: p}]}",
            f"rbac.providers[0]: give exactly one of {KEYS}",
        ),
        (
            "rbac: {providers: [{name: p, jwks_file: a, public_key_file: b}]}",
            f"rbac.providers[0].jwks_file: give exactly one of {KEYS}",
        ),
        (
            "rbac: {providers: [{name: p, public_key_file: k, algorithms: [RS256, HS256]}]}",
            (
                "rbac.providers[0].algorithms[1]: HS256 does not go with public_key_file; use RS256, "
                "RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA"
            ),
        ),
        (
            "rbac: {providers: [{name: p, hs256_secret_env: S, algorithms: [RS256]}]}",
            (
                "rbac.providers[0].algorithms[0]: RS256 does not go with hs256_secret_env; "
                "use HS256, HS384, HS512"
            ),
        ),
        (
            "rbac: {providers: [{name: p, hs256_secret_env: S, algorithms: [none]}]}",
            (
                "rbac.providers[0].algorithms[0]: expected HS256 or HS384 or HS512 or RS256 or RS384 "
                "or RS512 or PS256 or PS384 or PS512 or ES256 or ES384 or ES512 or EdDSA, not 'none'"
            ),
        ),
        (
            "rbac: {providers: [{name: p, hs256_secret_env: s3cr3t-value!}]}",
            (
                "rbac.providers[0].hs256_secret_env: this is the name of an environment variable that "
                "holds the secret, as HMS_JWT_SECRET; never the secret itself"
            ),
        ),
        (
            "rbac: {policies: [{name: p, action: allow}]}",
            "rbac.policies[0].action: expected ALLOW or DENY, not 'allow' (did you mean ALLOW?)",
        ),
        (
            "rbac: {policies: [{name: p, action: ALLOW, roles: []}]}",
            "rbac.policies[0].roles: must not be empty",
        ),
        (
            "rbac: {policies: [{name: p, action: ALLOW, path: [/a]}]}",
            "rbac.policies[0].path: unknown key 'path' (did you mean paths?)",
        ),
        (
            "rbac: {policies: [{name: p, action: DENY, paths: [a]}]}",
            (
                "rbac.policies[0].paths[0]: expected a path that begins with '/', with at most one "
                "'*', at its end, not 'a'"
            ),
        ),
        (
            "rbac: {policies: [{name: p, action: DENY, paths: ['/a/*/b']}]}",
            (
                "rbac.policies[0].paths[0]: expected a path that begins with '/', with at most one "
                "'*', at its end, not '/a/*/b'"
            ),
        ),
        (
            "rbac: {policies: [{name: p, action: DENY, paths: ['/%61dmin/../x*']}]}",
            (
                "rbac.policies[0].paths[0]: no request can have this path: requests' paths are "
                "normalised first (did you mean /x*?)"
            ),
        ),
        (
            "rbac: {policies: [{name: p, action: DENY, callers: [claims]}]}",
            (
                "rbac.policies[0].callers[0]: expected a SPIFFE ID such as "
                "spiffe://mpsa.mil/svc/claims-svc, or one that ends in *, not 'claims'"
            ),
        ),
        (
            "rbac: {policies: [{name: p, action: DENY, unless: {a: b}}]}",
            (
                "rbac.policies[0].unless: unknown key 'unless'; known here: action, callers, methods, "
                "mode, name, paths, roles, services, subjects, when"
            ),
        ),
        (
            "governance: {url: 'http://g', headers: [X-A, x-a]}",
            "governance.headers[1]: x-a is here twice",
        ),
        (
            "governance: {url: 'http://g', headers: [X-Forwarded-For]}",
            "governance.headers[0]: X-Forwarded-For is not governance's to set",
        ),
        (
            "governance: {url: 'http://g', headers: [Zone]}",
            "governance.headers[0]: 'Zone' is no name for an X-… header",
        ),
        (
            "headers: {role: X-A, subject: x-a}",
            "headers.subject: x-a is also the name for role",
        ),
        (
            "headers: {role: Authorization}",
            "headers.role: Authorization has a meaning of its own in HTTP",
        ),
        (
            "headers: {role: 'X A'}",
            "headers.role: 'X A' cannot be the name of a header field or a method",
        ),
    ],
)
def test_messages(text: str, message: str) -> None:
    assert error(text) == message
