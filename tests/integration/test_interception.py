"""Unchanged code that calls http://auth-svc.svc is carried: in a network namespace that this file makes.

Nothing outside of it changes: rules, addresses and /etc/resolv.conf are the namespace's own, and end with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import pki
from tests.integration.basics import MESH, ROOT
from tests.integration.conftest import inbound_config, secret_yaml
from tests.integration.netns_world import OUTSIDE, OUTSIDE_6, RESOLVER
from tests.integration.processes import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]

PATIENCE = 60.0
UID = "1337"
AS_SIDECAR = (
    *("setpriv", "--reuid", UID, "--regid", UID, "--clear-groups"),
    # So that it may read this Python and these files, wherever they are.
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
SETUP = f"""
set -e
ip link set lo up
ip address add {OUTSIDE}/32 dev lo
ip address add {RESOLVER}/32 dev lo
ip -6 address add {OUTSIDE_6}/128 dev lo nodad
mount --make-rprivate /
mount --bind "$1" /etc/resolv.conf
echo made
exec sleep 280
"""


def why_not() -> str | None:
    """Why no namespace can be made here; None if one can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    probe = f"ip link set lo up && iptables -w 5 -t nat -S && {' '.join(AS_SIDECAR)} true"
    done = subprocess.run(
        ("unshare", "--net", "--mount", "sh", "-c", probe),
        capture_output=True,
        text=True,
        check=False,
    )
    return (
        None if done.returncode == 0 else f"no network namespace to be had: {done.stderr.strip()}"
    )


class Space:
    """The namespace."""

    def __init__(self, pid: int) -> None:
        self._enter = ("nsenter", "-t", str(pid), "-n", "-m", "--")

    def start(self, *command: str | Path) -> Program:
        return Program(*self._enter, *command, cwd=ROOT)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command with an environment that knows no proxies, as an app has it."""
        return subprocess.run(
            [*self._enter, *map(str, command)],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def hms(self, *words: str) -> str:
        done = self.run("hms", "iptables", *words, "--apply", "--host")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def curl(self, url: str, *words: str) -> tuple[int, Any]:
        """The status, and what was answered; the status is 0 if nothing was."""
        done = self.run("curl", "-sS", "-m", "20", "-w", "\n%{http_code}", *words, url)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body) if body else done.stderr


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    conf = tmp_path_factory.mktemp("etc") / "resolv.conf"
    conf.write_text(f"nameserver {RESOLVER}\noptions timeout:5 attempts:1\n")
    with Program("unshare", "--net", "--mount", "sh", "-c", SETUP, "sh", conf) as holder:
        holder.wait_for("made")
        yield Space(holder.pid)


@pytest.fixture(scope="module")
def world(space: Space) -> Iterator[Program]:
    with space.start(sys.executable, ROOT / "tests/integration/netns_world.py") as program:
        program.wait_for("ready")
        yield program


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mesh")


@pytest.fixture(scope="module")
def auth(space: Space, world: Program, folder: Path) -> Iterator[Program]:
    """Auth-SVC's sidecar: it takes mutual TLS, and nothing else."""
    (folder / "auth").mkdir()
    files = pki.write_secret(folder / "auth", pki.svid("auth-svc"))
    (folder / "auth.yaml").write_text(inbound_config(15006, 9001, files))
    command = ("hms", "sidecar", "--admin", "off", "--config", folder / "auth.yaml")
    with space.start(*AS_SIDECAR, *command) as program:
        program.wait_for("ready:")
        yield program


def claims_config(folder: Path, *, port: int, dns: int, more: str = "") -> Path:
    (folder / f"claims-{port}").mkdir()
    files = pki.write_secret(folder / f"claims-{port}", pki.svid("claims-svc"))
    path = folder / f"claims-{port}.yaml"
    path.write_text(
        f"""\
trust_domain: mpsa.mil
service: claims-svc
listeners:
  - {{ name: caught, kind: transparent, port: {port}, unmatched: original }}
  - {{ name: caught-6, kind: transparent, port: {port}, host: "::1", unmatched: original }}
  - {{ name: names, kind: dns, port: {dns} }}
clusters:
  - {{ name: auth-svc, endpoints: ["127.0.0.1:15006"], tls_context: {{ sds: certs }} }}
secrets: {secret_yaml(files)}
"""
    )
    return path


@pytest.fixture(scope="module")
def claims(space: Space, auth: Program, folder: Path) -> Iterator[Program]:
    """Claims-SVC's sidecar; the app beside it is whatever a test runs."""
    config = claims_config(folder, port=15001, dns=15053)
    with space.start(
        *AS_SIDECAR, "hms", "sidecar", "--admin", "off", "--config", config
    ) as program:
        program.wait_for("ready: caught-6")
        space.hms("up", "--dns", "15053", "--ipv6")
        yield program
        assert program.stop() == 0
        assert "Traceback" not in program.output


def test_unchanged_code_is_carried_over_mutual_tls(
    space: Space, claims: Program, world: Program
) -> None:
    code = 'import requests; print(requests.get("http://auth-svc.svc/verify-id").text)'
    done = space.run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    for answer in (json.loads(done.stdout), space.curl("http://auth-svc.svc/verify-id")[1]):
        assert (answer["who"], answer["path"]) == ("auth-svc", "/verify-id")
        assert answer["headers"]["X-Caller-Service"] == "spiffe://mpsa.mil/svc/claims-svc"
    assert ".svc" not in world.output, "a name of the mesh's was asked for in the world"


def test_a_service_that_is_not_there_has_no_name(
    space: Space, claims: Program, world: Program
) -> None:
    status, said = space.curl("http://nope.svc/")
    assert (status, "Could not resolve host: nope.svc" in said) == (0, True)
    assert "nope" not in world.output


def test_the_world_is_called_as_before(space: Space, claims: Program, world: Program) -> None:
    """By its name, which its own resolver knows, and by IPv6."""
    for url in ("http://example.com/x?host=auth-svc.svc", f"http://[{OUTSIDE_6}]/x"):
        status, answer = space.curl(url)
        assert (status, answer["who"]) == (200, "outside")
        assert answer["headers"]["Via"], "it went through the sidecar"
        assert not {name for name in answer["headers"] if "Forwarded" in name or "Caller" in name}
    assert answer["path"] == "/x"
    world.wait_for("asked: example.com 1\n")


ODD = """
import socket
with socket.create_connection(("203.0.113.5", 80), 20) as odd:
    odd.sendall(b"SSH-2.0-OpenSSH_9.7\\r\\n\\r\\n")
    answer = b""
    while more := odd.recv(4096):
        answer += more
print(answer.split(b"\\r\\n")[0].decode())
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.settimeout(20)
    asking.sendto(b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\7example\\3com\\0\\0\\x10\\0\\1", ("203.0.113.53", 53))
    print(asking.recv(512)[-5:].decode())
"""


def test_what_is_no_http_is_refused_and_dns_of_other_types_passes(
    space: Space, claims: Program
) -> None:
    done = space.run(sys.executable, "-c", ODD)
    assert done.stdout.split("\n")[:2] == ["HTTP/1.1 400 Bad Request", "hello"], done.stderr


def test_rules_that_leave_out_the_wrong_user_are_told_of(
    space: Space, claims: Program, world: Program
) -> None:
    """Everything that the sidecar sends comes back to it: it says so, and does not go round in a circle."""
    space.hms("up", "--dns", "15053", "--uid", "4242")
    try:
        # A new address: a connection that was made before goes on.
        status, answer = space.curl(f"http://{RESOLVER}/")
        assert status == 508
        assert "hms iptables up --uid" in answer["detail"]
        assert space.curl("http://example.com/")[0] == 0
        claims.wait_for("a query that was passed on has come back")
    finally:
        space.hms("up", "--dns", "15053", "--ipv6")
    assert space.curl("http://example.com/")[0] == 200


def test_in_mitmdump_too(space: Space, auth: Program, folder: Path) -> None:
    """The same listener, and mitmproxy's own dns mode; both are shown as flows."""
    config = claims_config(folder, port=15002, dns=15054)
    (folder / "conf").mkdir()
    (folder / "conf").chmod(0o777)
    command = ("mitmdump", "--mode", "dns@127.0.0.1:15054", "-s", MESH)
    options = (
        "--set",
        f"hms_config={config}",
        "--set",
        "hms_admin=off",
        "--set",
        f"confdir={folder}/conf",
    )
    with space.start(*AS_SIDECAR, *command, *options) as program:
        program.wait_for("'caught' listening at")
        space.hms("up", "--to", "15002", "--dns", "15054")
        status, answer = space.curl("http://auth-svc.svc/verify-id")
        assert (status, answer["who"]) == (200, "auth-svc")
        assert answer["headers"]["X-Caller-Service"] == "spiffe://mpsa.mil/svc/claims-svc"
        assert space.curl("http://example.com/")[1]["who"] == "outside"
        for shown in (
            "DNS QUERY (A) auth-svc.svc",
            "GET http://auth-svc.svc/verify-id",
            "<< 127.240.240.1",
        ):
            program.wait_for(shown)


EITHER_KIND = """
import subprocess
from hms_addons.iptables.applied import Iptables
from hms_addons.iptables.rules import Redirection

for kind in ("nft", "legacy"):
    def nat(*words):
        return subprocess.run(
            ("iptables-" + kind, "-t", "nat", *words), stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    Iptables(kind).down()
    nat("-A", "OUTPUT", "-p", "tcp", "--dport", "9", "-j", "REDIRECT", "--to-ports", "1")
    before = nat("-S")
    for _ in range(2):
        Iptables(kind).up(Redirection(inbound=(8000,)))
    led = nat("-S")
    for _ in range(2):
        Iptables(kind).down()
    print(led.count("-j HMS_OUTPUT"), led.count("-j HMS_INBOUND"), "HMS" in before, nat("-S") == before)
"""


def test_down_takes_away_what_up_has_made_and_no_more(space: Space, world: Program) -> None:
    """With either kind of iptables, and with a rule of somebody else's there."""
    done = space.run(sys.executable, "-c", EITHER_KIND)
    assert done.stdout == "1 1 False True\n" * 2, done.stderr
    space.hms("up")
    assert "nothing is led to a sidecar any more" in space.hms("down")
    status, answer = space.curl(f"http://{OUTSIDE}/")
    assert (status, answer["who"]) == (200, "outside")
    assert "Via" not in answer["headers"]


def test_without_the_right_nothing_is_done(space: Space) -> None:
    done = space.run(*AS_SIDECAR, "hms", "iptables", "up", "--apply", "--host")
    assert done.returncode == 1
    assert "CAP_NET_ADMIN" in done.stderr
