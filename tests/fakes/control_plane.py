"""A control plane on a real TLS socket, as small as a test needs it: what it does is written here.

It follows the API's contract; each attribute may be changed between requests, and `answers` replaces
whole answers, for the bad days.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.serialization import Encoding

from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.control.ca.csr import load_csr
from hms_addons.identity import tls_context
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import peer_spiffe_id
from tests.fakes.upstream_server import RawServer, read_head

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from hms_addons.identity.trust_bundle import TrustBundle

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
TD = "mpsa.mil"


class FakeControlPlane:
    """`async with FakeControlPlane() as control: … control.url`.

    Attributes:
        authority: signs SVIDs; `bundle` is what is handed out.
        name: the path of its own SPIFFE ID.
        tokens: that are good; each once.
        document, version, digest: the snapshot; change it by `push`.
        requests: `(method, path, SPIFFE path of the caller or None)` of each request.
        reports, instances: what sidecars told.
        left: who has said goodbye.
        answers: raw answers to give instead, by path.
    """

    def __init__(self, authority: CertificateAuthority | None = None, port: int = 0) -> None:
        self.authority = authority or CertificateAuthority.create(TD)
        self.bundle: TrustBundle = self.authority.bundle
        self.sequence = 1
        self.name = "/hms/control"
        self.tokens = {"hms1.a.secret"}
        self.lifetime = 3600.0
        self.document: dict[str, Any] = {}
        self.version = 1
        self.digest = "0" * 12
        self.requests: list[tuple[str, str, str | None]] = []
        self.reports: list[dict[str, Any]] = []
        self.instances: dict[str, dict[str, Any]] = {}
        self.left: list[str] = []
        self.answers: dict[str, bytes] = {}
        self._changed = asyncio.Event()
        self._seen = asyncio.Event()
        self._server = RawServer(self._serve, port=port)

    async def __aenter__(self) -> Self:
        own = self.authority.issue(SpiffeId(self.authority.trust_domain, self.name), 3600)
        self._server.tls = tls_context.server_context(own, self.bundle, require_peer=False)
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.__aexit__(kind, error, trace)
        assert not self._server.errors, self._server.errors

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.port}"

    @property
    def pin(self) -> str:
        return self.authority.bundle.fingerprints()[0]

    def push(self, document: dict[str, Any], version: int | None = None) -> None:
        """A new snapshot for every service."""
        self.document = document
        self.version = self.version + 1 if version is None else version
        self.digest = f"{hash(json.dumps(document, sort_keys=True)) & 0xFFFFFFFFFFFF:012x}"
        self._changed.set()
        self._changed = asyncio.Event()

    def reported(self, **values: Any) -> bool:
        """Whether the last report says so."""
        return bool(self.reports) and values.items() <= self.reports[-1].items()

    def count(self, method: str, path: str) -> int:
        """Requests so far whose path begins so."""
        return sum(m == method and p.startswith(path) for m, p, _ in self.requests)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds; looked at after each request."""
        async with asyncio.timeout(20):
            while not condition():
                self._seen.clear()
                await self._seen.wait()

    # -- HTTP -----------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        peer = peer_spiffe_id(der).path if der else None
        while True:
            head = await read_head(reader)
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            length = LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            url = urlsplit(target)
            self.requests.append((method, url.path, peer))
            self._seen.set()
            answer = self.answers.get(url.path)
            if answer is None:
                answer = await self._answer(
                    method, url.path, parse_qs(url.query), head.decode(), body, peer
                )
            writer.write(answer)
            self._seen.set()
            await writer.drain()

    async def _answer(
        self,
        method: str,
        path: str,
        query: dict[str, list[str]],
        head: str,
        body: bytes,
        peer: str | None,
    ) -> bytes:
        if path == "/v1/bundle":
            document = self.bundle.to_spiffe_json(sequence=self.sequence)
            return reply(200, document.encode(), f"X-HMS-Trust-Domain: {self.bundle.trust_domain}")
        data = json.loads(body) if body else {}
        if path == "/v1/svids":
            return self._sign(data, head, peer)
        if peer is None:
            return problem(401, "show a certificate")
        if path == "/v1/snapshot":
            return await self._snapshot(query, head)
        if path.endswith("/report"):
            self.reports.append(data)
            return reply(200, json.dumps({"bundle_sequence": self.sequence}).encode())
        if path.startswith("/v1/sidecars/"):
            self.left.append(f"{path.rsplit('/', 1)[1]} of {query['service'][0]}")
            return reply(204)
        instance = path.rsplit("/", 1)[1]
        if method == "PUT":
            self.instances[instance] = data
            return reply(200, b"{}")
        return reply(204) if self.instances.pop(instance, None) else problem(404, "not there")

    def _sign(self, data: dict[str, Any], head: str, peer: str | None) -> bytes:
        token = re.search(r"(?i)authorization: bearer (\S+)", head)
        if token is not None and token[1] in self.tokens:
            self.tokens.discard(token[1])
        elif peer != f"/svc/{data['service']}":
            return problem(401, "the token is spent, or none")
        spiffe_id = SpiffeId.for_service(self.authority.trust_domain, data["service"])
        chain = self.authority.sign_svid(load_csr(data["csr"].encode()), spiffe_id, self.lifetime)
        answer = {
            "chain": "".join(c.public_bytes(Encoding.PEM).decode() for c in chain),
            "bundle": json.loads(self.bundle.to_spiffe_json(sequence=self.sequence)),
            "trust_domain": self.authority.trust_domain,
            "not_after": 0,
        }
        return reply(200, json.dumps(answer).encode())

    async def _snapshot(self, query: dict[str, list[str]], head: str) -> bytes:
        known = re.search(r'(?i)if-none-match: "([^"]*)"', head)
        if known is not None and known[1].partition(".")[2] == self.digest:
            try:
                wait = float(query["wait"][0].removesuffix("s"))
                await asyncio.wait_for(self._changed.wait(), wait)
            except TimeoutError:
                return reply(304)
        service = query["service"][0]
        answer = {
            "version": self.version,
            "digest": self.digest,
            "service": service,
            "trust_domain": TD,
            "config_version": 1,
            "document": {"service": service, "trust_domain": TD, **self.document},
        }
        return reply(200, json.dumps(answer).encode())


def reply(status: int, body: bytes = b"", *fields: str) -> bytes:
    """An answer's bytes."""
    framing = [] if status in {204, 304} else [f"Content-Length: {len(body)}"]
    head = "\r\n".join([f"HTTP/1.1 {status} Said", *fields, *framing, "", ""])
    return head.encode() + body


def problem(status: int, detail: str) -> bytes:
    """A problem document."""
    return reply(status, json.dumps({"title": "no", "detail": detail}).encode())
