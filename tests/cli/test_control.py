from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.fakes.cli import hms

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "15010"], "give host:port"),
        (["--listen", "127.0.0.1:x"], "give host:port"),
        (["--listen", "127.0.0.1:70000"], "give host:port"),
        (["--svid-lifetime", "soon"], "--svid-lifetime soon"),
        (
            ["--svid-lifetime", "500ms"],
            "SVIDs that live 0.5s cannot be: give --svid-lifetime between",
        ),
        (["--svid-lifetime", "1000d"], "SVIDs that live 1000d cannot be"),
        (["--trust-domain", "Bad_Upper"], "--trust-domain 'Bad_Upper': trust domain"),
        (["--trust-domain", ""], "--trust-domain '': the trust domain is empty"),
        (["--name", "bad host!"], "--name: 'bad host!' is neither an IP address nor a host name"),
        (["--name", "good.example", "--name", ""], "--name: ''"),
        (["--listen", "bad host!:1"], "--listen: 'bad host!'"),
        (["--loop", "twisted"], "give uvloop or asyncio"),
        (["--log-level", "loud"], "give debug, info, warning or error"),
    ],
)
def test_usage_errors_touch_nothing(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = hms("control", "--data", tmp_path / "data", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_it_needs_a_folder() -> None:
    result = hms("control", env={"HMS_DATA": ""})
    assert result.exit_code == 2
    assert "--data" in result.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_taken_port_is_said_in_one_line(tmp_path: Path, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as holder:
        try:
            holder.bind((host.strip("[]"), 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        holder.listen()
        port = holder.getsockname()[1]
        result = hms("control", "--data", tmp_path / "data", "--listen", f"{host}:{port}")
    assert result.exit_code == 1
    assert "control plane cannot listen on" in result.stderr
    assert "the port is in use" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
