from __future__ import annotations

from tests.fakes.ca_document import CA, ROTATING
from tests.fakes.cli import hms
from tests.fakes.threaded_control import threaded


def test_show() -> None:
    with threaded({("GET", "/v1/ca"): (200, CA)}) as env:
        result = hms("ca", "show", env=env)
        as_json = hms("ca", "show", "--json", env=env)
    assert result.exit_code == 0
    assert "phase         steady" in result.stdout
    assert '"phase": "steady"' in as_json.stdout


def test_rotate_root() -> None:
    with threaded({("POST", "/v1/ca/rotate-root"): (202, ROTATING)}) as env:
        result = hms("ca", "rotate-root", "--overlap", "1h", env=env)
        hurried = hms("ca", "rotate-root", "--now", env=env)
    assert (result.exit_code, hurried.exit_code) == (0, 0)
    assert "waiting for   a1b2, c3d4" in result.stdout


def test_a_second_rotation_is_refused() -> None:
    answers = {("POST", "/v1/ca/rotate-root"): (409, {"detail": "being replaced already"})}
    with threaded(answers) as env:
        result = hms("ca", "rotate-root", env=env)
    assert result.exit_code == 1
    assert "being replaced already" in result.stderr


def test_usage_errors() -> None:
    env = {"HMS_CONTROL": "", "HMS_CA_PIN": "", "HMS_ADMIN_TOKEN": ""}
    result = hms("ca", "rotate-root", "--overlap", "soon", env=env)
    assert result.exit_code == 2
    assert "--overlap soon" in result.stderr
    assert "--ca-pin" in hms("ca", "show", env=env).stderr
