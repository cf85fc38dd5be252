from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.config.load import load
from hms_addons.identity.key_source import MAX_KEY_FILE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

FETCHED = "rbac: {{providers: [{{name: p, jwks_uri: '{}'}}]}}"
PROVIDERS = "rbac: {providers: [{name: p, hs256_secret_env: S}]}\n"
INBOUND = ", {name: in, port: 2, direction: inbound, app: 'http://127.0.0.1:1'}"


def told(text: str, about: str, *, control: bool = False) -> list[str]:
    problems = load([("a.yaml", text.encode())], control=control).problems
    return [problem.message for problem in problems if about in problem.path]


@pytest.mark.parametrize(
    ("uri", "warned"),
    [
        ("http://id.example/keys?t=1", True),
        ("http://12.7.0.1/", True),
        ("https://id.example/keys?t=1", False),
        ("http://127.0.0.1:8000/keys", False),
        ("http://localhost/keys", False),
        ("http://[::1]/keys", False),
    ],
)
def test_keys_over_plain_http_from_elsewhere_are_warned_of(uri: str, warned: bool) -> None:
    found = told(FETCHED.format(uri), "jwks_uri")
    assert len(found) == warned
    assert all("can put keys of his own in" in message for message in found)


def test_identity_that_nothing_could_be_taken_from_is_warned_of() -> None:
    begin = f"{PROVIDERS}listeners: [{{name: out, port: 1, propagate_identity: true}}"
    (found,) = told(f"{begin}]", "propagate_identity")
    assert "there is no inbound listener" in found
    assert told(f"{begin}{INBOUND}]", "propagate_identity") == []
    assert told(f"{begin}]", "propagate_identity", control=True) == []


@pytest.mark.parametrize(
    ("key", "content", "why"),
    [
        ("jwks_file", b" " * 10_000_000, f"longer than {MAX_KEY_FILE_BYTES} bytes"),
        ("jwks_file", b"garbage", "it is not JSON"),
        ("jwks_file", b'{"keys": []}', "no usable key in the JWK set"),
        ("public_key_file", b"garbage", "it holds no -----BEGIN PUBLIC KEY-----"),
        ("public_key_file", b"-----BEGIN PRIVATE KEY-----", "it holds a private key"),
    ],
)
def test_a_file_without_usable_keys_is_warned_of(
    tmp_path: Path, key: str, content: bytes, why: str
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    (message,) = told(f"rbac: {{providers: [{{name: p, {key}: '{file}'}}]}}", key)
    assert why in message
    assert str(file) in message


def test_a_file_of_good_keys_is_not(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text('{"keys": [{"kty": "oct", "k": "%s"}]}' % ("QUJD" * 16))
    assert told(f"rbac: {{providers: [{{name: p, jwks_file: '{file}'}}]}}", "jwks_file") == []


def test_a_folder_in_place_of_keys_is_not_read(tmp_path: Path) -> None:
    assert told(f"rbac: {{providers: [{{name: p, jwks_file: '{tmp_path}'}}]}}", "jwks_file") == []
