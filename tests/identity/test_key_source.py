from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hms_addons.identity.key_set import KeySet, key_set_of_jwks
from hms_addons.identity.key_source import MAX_KEY_FILE_BYTES, FileKeySource, SecretKeySource
from tests.fakes import pki

if TYPE_CHECKING:
    from pathlib import Path

RS256 = pki.jwt_key("RS256")
OTHER = pki.jwt_key("RS256", "other")


def ids(source: FileKeySource) -> list[str | None]:
    return [key.key_id for key in source.keys.keys]


def test_a_jwks_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(pki.jwks(RS256))
    source = FileKeySource.of_jwks(path)
    assert ids(source) == ["key-1"]
    assert source.refresh() is False
    path.write_text(pki.jwks(RS256, OTHER))
    assert source.refresh() is True
    assert ids(source) == ["key-1", "other"]
    assert source.refresh() is False


def test_a_file_rewritten_with_the_same_keys_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(pki.jwks(RS256))
    source = FileKeySource.of_jwks(path)
    path.write_text(pki.jwks(RS256) + "\n")
    assert source.refresh() is False


def test_a_pem_file(tmp_path: Path) -> None:
    path = tmp_path / "idp.pem"
    path.write_bytes(RS256.public_pem)
    source = FileKeySource.of_pem(path)
    assert ids(source) == [None]
    path.write_bytes(OTHER.public_pem)
    assert source.refresh() is True


def test_a_missing_file_blocks_nothing_and_is_taken_when_it_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jwks.json"
    source = FileKeySource.of_jwks(path)
    for _ in range(3):
        assert source.refresh() is False
    assert source.keys.keys == ()
    assert source.problem == f"{path}: No such file or directory"
    assert caplog.text.count("No such file") == 1
    path.write_text(pki.jwks(RS256))
    assert source.refresh() is True
    assert source.problem is None


@pytest.mark.parametrize("content", ["", "{", '{"keys": []}', "x" * (MAX_KEY_FILE_BYTES + 1), None])
def test_a_spoilt_file_leaves_the_old_keys(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(pki.jwks(RS256))
    source = FileKeySource.of_jwks(path)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    assert source.refresh() is False
    assert source.problem is not None
    assert str(path) in source.problem
    assert ids(source) == ["key-1"]
    path.write_text(pki.jwks(RS256))
    assert source.refresh() is False
    assert source.problem is None


def test_a_spoilt_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text("{")
    reads = []

    def parse(content: bytes) -> KeySet:
        reads.append(content)
        return key_set_of_jwks(content)

    source = FileKeySource(path, parse)
    for _ in range(3):
        source.refresh()
    assert len(reads) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(pki.jwks(RS256))
    path.chmod(0)
    assert "Permission denied" in str(FileKeySource.of_jwks(path).problem)


def test_the_state_is_in_the_repr(tmp_path: Path) -> None:
    source = FileKeySource.of_jwks(tmp_path / "jwks.json")
    assert "keys=0 problem='" in repr(source)


def test_a_secret_from_the_environment() -> None:
    key = pki.jwt_key("HS256")
    source = SecretKeySource("IDP_SECRET", {"IDP_SECRET": key.secret})
    assert source.problem is None
    assert source.keys.keys[0].algorithms == {"HS256"}
    assert source.refresh() is False


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, "the environment variable IDP_SECRET is not set"),
        ({"IDP_SECRET": ""}, "the environment variable IDP_SECRET is not set"),
        ({"IDP_SECRET": "hunter2"}, "IDP_SECRET: a shared secret of 7 bytes is too short"),
        ({"IDP_SECRET": RS256.public_pem.decode()}, "IDP_SECRET: the shared secret is a public"),
    ],
)
def test_a_bad_secret_is_a_problem_not_an_error(environ: dict[str, str], reason: str) -> None:
    source = SecretKeySource("IDP_SECRET", environ)
    assert reason in str(source.problem)
    assert "hunter2" not in str(source.problem)
    assert source.keys.keys == ()
