"""A control plane of its own for a measurement: started empty, filled over its API, ended."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import ssl
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from scripts.benchmark.process import START_SECONDS, BenchError, Child, free_port

if TYPE_CHECKING:
    from types import TracebackType

_PIN = re.compile(r"HMS_CA_PIN=['\"]?(sha256:[0-9a-f]{64})")
_TOKEN = re.compile(r"HMS_ADMIN_TOKEN=['\"]?([^\s'\"]+)")
_WATCHERS = re.compile(r"^hms_control_watchers (\S+)$", re.MULTILINE)
_TOO_MANY = 429


class ControlPlane:
    """`with ControlPlane(folder, cores) as control: …`.

    Args:
        folder: for its log and its data; new.
        cores: that it runs on.
    """

    def __init__(self, folder: Path, cores: frozenset[int]) -> None:
        self.port = free_port()
        listen = f"127.0.0.1:{self.port}"
        argv = [str(Path(sys.executable).with_name("hms")), "control"]
        argv += ["--data", str(folder / "data"), "--listen", listen, "--log-level", "warning"]
        self.child = Child("control", argv, folder, cores)
        self.token = ""
        self.pin = ""
        self.start_seconds = 0.0
        """From its start until it said that it serves."""
        self.context = ssl.create_default_context()
        self._connection: http.client.HTTPSConnection | None = None

    def __enter__(self) -> Self:
        """Wait until it serves, and trust the root that it has printed the pin of."""
        try:
            self.pin, self.token = self._announced()
            self.start_seconds = time.monotonic() - self.child.started
            self.context.load_verify_locations(cadata=self._root(self.pin))
        except BaseException:
            self.child.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        if self._connection is not None:
            self._connection.close()
        self.child.stop()

    def ask(self, method: str, path: str, body: object = None, *, yaml: str | None = None) -> bytes:
        """One request as the operator, again when it came too soon; the body of its answer."""
        content = json.dumps(body).encode() if yaml is None else yaml.encode()
        fields = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json" if yaml is None else "application/yaml",
        }
        while True:
            if self._connection is None:
                self._connection = http.client.HTTPSConnection(
                    "127.0.0.1", self.port, context=self.context, timeout=60
                )
            given = None if body is None and yaml is None else content
            self._connection.request(method, path, given, fields)
            response = self._connection.getresponse()
            answer = response.read()
            if response.status == _TOO_MANY:
                time.sleep(float(response.headers.get("Retry-After", "1")))
                continue
            if response.status >= http.HTTPStatus.BAD_REQUEST:
                raise BenchError(f"control: {method} {path} gave {response.status}: {answer!r}")
            return answer

    def waiting(self) -> int:
        """How many long polls it holds."""
        found = _WATCHERS.search(self.ask("GET", "/metrics").decode())
        if found is None:
            raise BenchError("control: /metrics does not tell hms_control_watchers")
        return int(float(found[1]))

    def join_token(self, service: str) -> str:
        """A token with which a sidecar of that service gets its first SVID."""
        made: dict[str, Any] = json.loads(self.ask("POST", "/v1/tokens", {"service": service}))
        return str(made["token"])

    def _announced(self) -> tuple[str, str]:
        """Its pin and admin token, as it prints them once it serves."""
        while time.monotonic() - self.child.started < START_SECONDS:
            self.child.ensure_alive()
            text = self.child.log.read_text(encoding="utf-8", errors="replace")
            pin, token = _PIN.search(text), _TOKEN.search(text)
            if pin is not None and token is not None:
                return pin[1], token[1]
            time.sleep(0.02)
        raise BenchError(f"control: did not say that it serves:\n{self.child.log_tail()}")

    def _root(self, pin: str) -> str:
        """The root of that pin, as PEM."""
        unverified = ssl._create_unverified_context()  # noqa: S323, SLF001 - the pin is checked below
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=unverified, timeout=10
        )
        connection.request("GET", "/v1/bundle")
        document: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        for key in document["keys"]:
            der = base64.b64decode(key["x5c"][0])
            if f"sha256:{hashlib.sha256(der).hexdigest()}" == pin:
                return ssl.DER_cert_to_PEM_cert(der)
        raise BenchError("control: its bundle holds no root of the pin that it printed")
