"""A program's line, made safe to be shown: its colours stay, and nothing else of what terminals obey.

Otherwise a program, or whoever it logs the words of, could clear the screen, set the clipboard, hide
lines, or write ones that look like another's.
"""

from __future__ import annotations

import re
from typing import Final

COLOURS: Final = re.compile(r"\x1b\[[0-9;:]*m")
"""SGR (ECMA-48 section 8.3.117): colours, bold and the like, which move nothing."""
_RESET: Final = "\x1b[0m"
# C0 but the tab, C1, Unicode's own line ends, and what turns the direction of writing round.
_UNSAFE: Final = re.compile(
    rf"({COLOURS.pattern})|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def plain_line(line: str) -> str:
    r"""`line` with its control characters written out, as `\x07`; colours end with it."""
    if line.isprintable():
        return line
    safe = _UNSAFE.sub(_written, line)
    return safe + _RESET if "\x1b" in safe and not safe.endswith(_RESET) else safe


def _written(found: re.Match[str]) -> str:
    return found[1] or ascii(found[0])[1:-1]


def without_colours(line: str) -> str:
    """What `plain_line` has made, for where there are no colours."""
    return COLOURS.sub("", line) if "\x1b" in line else line
