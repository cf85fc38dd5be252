"""A real control plane, and those who call it."""

from __future__ import annotations

import json
import ssl
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hms_addons.identity.enrolment import IssuedSvid, check_issued, new_request
from hms_addons.identity.tls_context import client_context
from hms_addons.identity.trust_bundle import TrustBundle
from tests.fakes import cli
from tests.integration.basics import Closing, free_port
from tests.integration.clients import Connection, Response
from tests.integration.processes import Program

if TYPE_CHECKING:
    from pathlib import Path

    from hms_addons.identity.identity_holder import SecretMaterial

YAML = "Content-Type: application/yaml"


class Control(Closing):
    """`hms control` as a process.

    Args:
        data: its folder.
        options: further ones of the command line.
        port: to listen on; a free one if not given.
    """

    def __init__(self, data: Path, *options: str | Path, port: int | None = None) -> None:
        self.data = data
        self.port = port or free_port()
        self.program = Program(
            *("hms", "control", "--data", data, "--listen", f"127.0.0.1:{self.port}"), *options
        )
        self.program.wait_for("export HMS_CA_PIN")
        self.exports = exports(self.program.output)

    def close(self) -> None:
        self.program.close()

    @property
    def token(self) -> str:
        """The admin token, if it was shown at this start."""
        return self.exports["HMS_ADMIN_TOKEN"]

    @property
    def bearer(self) -> str:
        """The header line that makes an admin."""
        return f"Authorization: Bearer {self.token}"

    def bundle(self) -> TrustBundle:
        """What it says to trust."""
        answer = self.ask("GET", "/v1/bundle", context=unverified())
        return TrustBundle.from_spiffe_json("mpsa.mil", answer.body)

    def connect(self, context: ssl.SSLContext | None = None) -> Connection:
        """A connection; by default one that shows nothing and checks the CA."""
        return Connection(self.port, context or checking(self.bundle()))

    def ask(
        self,
        method: str,
        path: str,
        *fields: str,
        context: ssl.SSLContext | None = None,
        **options: Any,
    ) -> Response:
        """One request on a connection of its own; `body` may be JSON-ready."""
        body = options.pop("json", None)
        if body is not None:
            options["body"] = json.dumps(body).encode()
            fields = (*fields, "Content-Type: application/json")
        with self.connect(context or unverified()) as connection:
            return connection.exchange(method, path, *fields, **options)

    def admin(self, method: str, path: str, *fields: str, **options: Any) -> Response:
        """… as the admin."""
        return self.ask(method, path, self.bearer, *fields, **options)

    def join(self, service: str) -> Sidecar:
        """Enrol as a sidecar of a service, by a join token."""
        made = self.admin("POST", "/v1/tokens", json={"service": service})
        assert made.status == 201, made.body
        return self.enrol(service, made.json["token"])

    def enrol(self, service: str, token: str) -> Sidecar:
        """Enrol with a token."""
        key, csr = new_request()
        answer = self.ask(
            "POST",
            "/v1/svids",
            f"Authorization: Bearer {token}",
            json={"service": service, "csr": csr.decode()},
        )
        assert answer.status == 200, answer.body
        told = answer.json
        issued = IssuedSvid(
            told["chain"].encode(), json.dumps(told["bundle"]).encode(), told["trust_domain"]
        )
        return Sidecar(self, service, check_issued(issued, key, service, told["not_after"] - 60))

    def push(self, text: str, *fields: str) -> Response:
        """Push a configuration of one file."""
        return self.admin("PUT", "/v1/config", YAML, *fields, body=text.encode())


@dataclass
class Sidecar:
    """One that has an SVID, and shows it."""

    control: Control
    service: str
    material: SecretMaterial

    @property
    def context(self) -> ssl.SSLContext:
        """Shows its SVID."""
        return client_context(self.material.svid, self.material.bundle)

    def ask(self, method: str, path: str, *fields: str, **options: Any) -> Response:
        """One request."""
        return self.control.ask(method, path, *fields, context=self.context, **options)


def exports(output: str) -> dict[str, str]:
    """The variables that a control plane has printed."""
    lines = [line.removeprefix("export ") for line in output.splitlines() if "export HMS" in line]
    return dict(line.split(" ")[0].split("=", 1) for line in lines)


def unverified() -> ssl.SSLContext:
    """For a client that believes anyone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def checking(bundle: TrustBundle) -> ssl.SSLContext:
    """For an ordinary client, which knows the CA and the host's name."""
    context = ssl.create_default_context(cadata=bundle.to_pem().decode())
    context.check_hostname = False
    return context


def hms(control: Control, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run an operator's command with what the control plane has printed."""
    program = Program("hms", *words, env={**control.exports, **env})
    code = program.wait()
    return subprocess.CompletedProcess(words, code, program.output, "")


def hms_here(control: Control, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, in a tenth of the time: for all but each command's first."""
    done = cli.hms(*words, env={**control.exports, **env})
    return subprocess.CompletedProcess(words, done.exit_code, done.output, "")
