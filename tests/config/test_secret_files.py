from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.installed import Known
from hms_addons.config.load import load
from tests.fakes import pki

if TYPE_CHECKING:
    from pathlib import Path


def errors(text: str) -> list[str]:
    loaded = load([("a.yaml", text.encode())], known=Known(files=True))
    return [f"{p.path}: {p.message}" for p in loaded.problems if p.severity == "error"]


def secret(folder: Path) -> str:
    files = pki.write_secret(folder, pki.svid("a"))
    return f"secrets: {{s: {{certificate: {files.certificate}, key: {files.key}, bundle: {files.bundle}}}}}"


def test_good_files_are_good(tmp_path: Path) -> None:
    assert errors(secret(tmp_path)) == []


def test_another_trust_domain_is_refused_unless_that_is_the_fault(tmp_path: Path) -> None:
    text = secret(tmp_path)
    (error,) = errors(f"{text}\ntrust_domain: other.example")
    assert error.startswith("secrets.s: ")
    (error,) = errors(f"{text}\ntrust_domain: Other.Example")
    assert error.startswith("trust_domain: "), "it may be meant to be the right one"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    text = secret(tmp_path).replace(str(tmp_path / "bundle.pem"), str(tmp_path))
    assert errors(text) == [f"secrets.s.bundle: {tmp_path}: is a directory"]
