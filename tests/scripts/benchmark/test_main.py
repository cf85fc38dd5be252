from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmark import contenders
from scripts.benchmark.__main__ import ROOT, _parse, main
from scripts.benchmark.scenarios import SCENARIOS


def test_without_options_everything_is_measured() -> None:
    options = _parse([])
    assert "".join(scenario.letter for scenario in options.only) == "abcdefghm"
    assert options.contenders == contenders.NAMES == ("hms", "envoy", "nginx", "mitmdump")
    assert (options.rounds, options.quick, options.json) == (None, False, None)


def test_a_choice_keeps_the_order_of_the_list() -> None:
    options = _parse(["--only", "f, b", "--contenders", "envoy,hms", "--rounds", "7"])
    assert [scenario.letter for scenario in options.only] == ["b", "f"]
    assert options.contenders == ("hms", "envoy")
    assert options.rounds == 7


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--only", "b,z"], "no scenario 'z'; there are a, b, c"),
        (["--contenders", "caddy"], "no contender 'caddy'; there are hms, envoy"),
        (["--rounds", "0"], "'0' is no number of rounds"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_a_wrong_option_is_named(
    arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert fault in capsys.readouterr().err


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert raised.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "scripts/bench --only b,c --rounds 9" in text
    assert "exit status" in text
    for scenario in SCENARIOS:
        assert f"{scenario.letter}: {scenario.title}" in text


@pytest.mark.nginx
@pytest.mark.wrk
def test_a_run_prints_its_figures_and_saves_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    arguments = ["--quick", "--rounds", "1", "--only", "a", "--contenders", "nginx"]
    assert main([*arguments, "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    assert document["details"]["plain"]["nginx"]["requests_per_second"]["median"] > 0
    assert document["failures"] == {}
    printed = capsys.readouterr().out
    assert "One plain hop" in printed
    assert "round 1/1" in printed


@pytest.mark.nginx
@pytest.mark.wrk
def test_a_scenario_that_fails_is_told_and_ends_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # nginx cannot verify a token: it would win the policy scenario by not doing it.
    monkeypatch.setitem(contenders._STARTERS, "hms", contenders._STARTERS["nginx"])
    file = tmp_path / "results.json"
    arguments = ["--quick", "--rounds", "1", "--only", "b,a", "--contenders", "hms"]
    assert main([*arguments, "--json", str(file)]) == 1
    document = json.loads(file.read_text())
    assert "does not do its job" in document["failures"]["b"]
    assert document["details"].keys() == {"plain"}
    assert "✗ (b) failed" in capsys.readouterr().out


@pytest.mark.nginx
@pytest.mark.wrk
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_a_round_it_ends_its_children(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-u", "-m", "scripts.benchmark", "--only", "a"]
    with subprocess.Popen(
        [*command, "--contenders", "nginx"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as bench:
        assert bench.stdout is not None
        while "round 1/5" not in bench.stdout.readline():
            assert bench.poll() is None
        assert len(processes_of(tmp_path)) >= 2, "the upstream and the contender"
        bench.send_signal(number)
        _, errors = bench.communicate(timeout=30)
    assert bench.returncode == 130
    assert "interrupted" in errors
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def processes_of(directory: Path) -> list[str]:
    """The command lines of all processes that name the scratch folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_text().replace("\0", " ")
            if str(directory) in command:
                found.append(command)
    return found
