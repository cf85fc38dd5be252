"""The README's commands for a mesh with files: its files written, its commands run, word by word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.integration.test_readme import Terminals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADING = "### With files"


def section() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start = text.index(HEADING)
    return text[start : text.index("\n## ", start)]


def commands() -> list[str]:
    """The commands of the section's console block, without their comments."""
    block = re.search(r"```console\n(.*?)```", section(), re.DOTALL)
    assert block is not None
    lines = block[1].splitlines()
    assert all(line.startswith("$ ") for line in lines)
    return [re.sub(r"\s+#.*", "", line.removeprefix("$ ")) for line in lines]


def files() -> dict[str, str]:
    """Each block of YAML, by the last file that is named before it."""
    found = {}
    text = section()
    for block in re.finditer(r"```yaml\n(.*?)```", text, re.DOTALL):
        name = re.findall(r"`([a-z]+\.yaml)`", text[: block.start()])[-1]
        found[name] = block[1]
    return found


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    terminals = Terminals(tmp_path)
    (tmp_path / "hms_addons").symlink_to(ROOT / "hms_addons")
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    yield terminals
    terminals.close()


def test_every_file_that_it_names_is_shown_or_shipped() -> None:
    shown = files()
    assert set(shown) == {"local.yaml", "auth.yaml"}
    assert len(shown["auth.yaml"].splitlines()) == 5
    words = re.split(r"[ ,=]", " ".join(commands()))
    named = {word for word in words if word.endswith((".yaml", ".py"))}
    named |= {f"{word.replace('.', '/')}.py" for word in words if word.startswith("scripts.")}
    assert [name for name in named - shown.keys() if not (ROOT / name).is_file()] == []


@pytest.mark.slow
@pytest.mark.curl
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("well_known")
def test_its_commands_bring_up_a_mesh(terminals: Terminals) -> None:
    certs, check, auth, claims, curl = commands()
    code, said = terminals.run(certs)
    assert code == 0, said
    code, said = terminals.run(check)
    assert code == 0, said
    assert "warning" not in said
    terminals.stay(auth)
    terminals.stay(claims)
    assert '"replica": "auth-svc"' in terminals.run_until(curl, '"verified": true')
