"""The demo's own copy of `configs/lost-package/mesh.yaml`, edited as a person would: a few words at a time."""

from __future__ import annotations

import re
import shutil
from difflib import ndiff
from pathlib import Path

from scripts.demonstration.up import DemoError

ROOT = Path(__file__).resolve().parents[2]
NAME = Path("configs", "lost-package", "mesh.yaml")


class MeshFile:
    """A copy in another folder, so that nothing is left in the repository.

    Args:
        work: the folder; the services' code is linked into it.
    """

    def __init__(self, work: Path) -> None:
        self.path = work / NAME
        self.path.parent.mkdir(parents=True)
        shutil.copyfile(ROOT / NAME, self.path)
        (work / "scripts").symlink_to(ROOT / "scripts")

    @property
    def text(self) -> str:
        """What it says now."""
        return self.path.read_text(encoding="utf-8")

    def edit(self, old: str, new: str, *, below: str = "") -> str:
        """Replace the first `old` after the line `below`, in one step, as an editor does.

        Returns:
            The lines that have changed, as a diff shows them.

        Raises:
            DemoError: it is not there.
        """
        before = self.text
        start = before.find(f"\n{below}") if below else 0
        at = before.find(old, start) if start >= 0 else -1
        if at < 0:
            raise DemoError(f"{self.path} has no {old!r} {f'below {below!r}' if below else ''}")
        after = before[:at] + new + before[at + len(old) :]
        fresh = self.path.with_suffix(".new")
        fresh.write_text(after, encoding="utf-8")
        fresh.replace(self.path)
        return "\n".join(_changed(before, after))

    def line_of(self, text: str) -> int:
        """The number of the first line that holds `text`."""
        return 1 + next(n for n, line in enumerate(self.text.splitlines()) if text in line)


def _changed(before: str, after: str) -> list[str]:
    """What has changed, below the name of the service or section that it is in."""
    shown: list[str] = []
    section = told = ""
    for line in ndiff(before.splitlines(), after.splitlines()):
        if line.startswith("?"):
            continue
        if re.match(r"[ +-] {0,3}[\w-]+:", line[1:]):
            section = line
        if line[0] != " ":
            if section not in {told, line}:
                shown.append(section)
                told = section
            shown.append(line)
    return shown
