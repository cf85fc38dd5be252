from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from scripts.demonstration.children import DemoError
from scripts.demonstration.operating import Operator, exported
from scripts.demonstration.processes import Processes

if TYPE_CHECKING:
    from pathlib import Path

PRINTED = """\
# control plane of mpsa.mil, ready; data in /data
export HMS_CONTROL=https://127.0.0.1:15010
export HMS_CA_PIN=sha256:00ff
export HMS_ADMIN_TOKEN=hmsadmin.secret    # shown this once
"""
AGAIN = """\
export HMS_CONTROL=https://127.0.0.1:15011
export HMS_CA_PIN=sha256:00ff
# the admin token was shown at the first start
"""


class Shell(Processes):
    """Runs a program of the test's in place of `hms`."""

    def __init__(self, folder: Path, code: str) -> None:
        super().__init__(folder / "logs")
        self._code = code

    def program(self, command: object) -> list[str]:
        del command
        return [sys.executable, "-c", self._code]


def operator(folder: Path, code: str = "", printed: str = PRINTED) -> Operator:
    exports = folder / "operator.env"
    exports.write_text(printed)
    return Operator(Shell(folder, code), exports)


def test_what_was_printed_is_read_as_a_shell_reads_it() -> None:
    assert exported(PRINTED) == {
        "HMS_CONTROL": "https://127.0.0.1:15010",
        "HMS_CA_PIN": "sha256:00ff",
        "HMS_ADMIN_TOKEN": "hmsadmin.secret",
    }
    assert exported("exporting things\necho export A=b\nexport 'A=b c' D") == {"A": "b c"}


def test_after_a_second_start_the_newer_lines_count_and_the_token_stays(tmp_path: Path) -> None:
    env = operator(tmp_path, printed=PRINTED + AGAIN).environment()
    assert env["HMS_CONTROL"].endswith(":15011")
    assert env["HMS_ADMIN_TOKEN"] == "hmsadmin.secret"


def test_half_of_the_lines_is_nothing_yet(tmp_path: Path) -> None:
    half = PRINTED.split("export HMS_CA_PIN", maxsplit=1)[0]
    assert operator(tmp_path, printed=half).environment() == {}


def test_sidecars_are_not_given_the_admin_token(tmp_path: Path) -> None:
    assert operator(tmp_path).public().keys() == {"HMS_CONTROL", "HMS_CA_PIN"}


def test_commands_have_the_variables(tmp_path: Path) -> None:
    code = "import os; print(os.environ['HMS_ADMIN_TOKEN'])"
    assert operator(tmp_path, code).run("status").text == "hmsadmin.secret"


def test_a_token_is_found_in_what_was_printed(tmp_path: Path) -> None:
    code = "print('export HMS_TOKEN=hms1.ab_c.de-F  # for auth-svc')"
    assert operator(tmp_path, code).token("auth-svc") == "hms1.ab_c.de-F"


@pytest.mark.parametrize("code", ["print('no such service')", "print('hms1.a.b'); exit(1)"])
def test_no_token_is_told_with_what_was_said(tmp_path: Path, code: str) -> None:
    with pytest.raises(DemoError, match="hms token create --service auth-svc has printed"):
        operator(tmp_path, code).token("auth-svc")


def test_json_comes_with_the_exit_code(tmp_path: Path) -> None:
    assert operator(tmp_path, "print('[1]'); exit(1)").json("status") == (1, [1])


def test_json_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="hms status --json has printed:\noops"):
        operator(tmp_path, "print('oops')").json("status")
