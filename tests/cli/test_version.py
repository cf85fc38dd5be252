from __future__ import annotations

import re

from typer.testing import CliRunner

from hms_addons.cli import app
from hms_addons.cli.version import compiled


def test_it_says_what_runs_here() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert re.fullmatch(
        r"hms-svc \S+ \(hot path interpreted, mitmproxy 1\d\.\S+, Python 3\.\S+\)\n", done.output
    )


def test_machine_code_is_known_by_its_file() -> None:
    assert compiled("httptools.parser.parser")
    assert not compiled("hms_addons.errors")
    assert not compiled("hms_there_is_no_such_module")
