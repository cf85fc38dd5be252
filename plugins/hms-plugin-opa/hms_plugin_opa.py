# ruff: noqa: INP001 - one module is all there is, so it needs no package
"""Authorises requests by asking an Open Policy Agent over its REST API.

plugins:
  opa: { url: "http://127.0.0.1:8181", path: mesh/allow }

`POST {url}/v1/data/{path}` with `{"input": …}` (OPA's Data API). Its `result` is true or false, or
`{"allow": true or false, "reason": "…"}`. A result that is not there is a no.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import logging
import os
import re
import ssl
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import quote

from pydantic import AfterValidator, Field

from hms_addons.clock import SYSTEM_CLOCK, within
from hms_addons.config.plugin_options import plugin_options
from hms_addons.config.schema_base import Duration, FieldName, Model, PositiveDuration, fault
from hms_addons.errors import ConfigError, Flag, MeshError
from hms_addons.hookspecs import hookimpl
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterator, Mapping

    import httpx

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh

logger = logging.getLogger(__name__)

NAME: Final = "opa"
MAX_REPLY: Final = 64 * 1024
"""Bytes of OPA's reply that are read."""
MAX_REASON: Final = 500
"""Characters of OPA's reason that the caller is told."""
_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(?:/[A-Za-z0-9._~/-]*)?")
_OK: Final = 200


def _url(value: str) -> str:
    if not _URL.fullmatch(value):
        raise fault(
            "expected a URL such as http://127.0.0.1:8181, without user, query and fragment"
        )
    return value.rstrip("/")


def _rule(value: str) -> str:
    path = value.strip("/").removeprefix("v1/data/")
    if not path or any(not part for part in path.split("/")):
        raise fault("expected the path of a rule, as mesh/allow for data.mesh.allow")
    return path


class CacheOptions(Model):
    """How long and how many of OPA's decisions are remembered."""

    ttl: Duration = 5.0
    """0: none is."""
    entries: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000


class Options(Model):
    """What stands under `plugins.opa`."""

    url: Annotated[str, AfterValidator(_url)]
    """OPA's address."""
    path: Annotated[str, AfterValidator(_rule)]
    """The rule that decides: `mesh/allow` is `data.mesh.allow`."""
    timeout: PositiveDuration = 1.0
    """For a decision, the wait for a free connection included."""
    on_failure: Literal["closed", "open"] = "closed"
    """What a request gets when OPA cannot be asked: a 503, or leave to go on."""
    services: list[str] = Field(default_factory=list)
    """The services that are asked about; none: all of them."""
    direction: Literal["inbound", "outbound", "both"] = "both"
    """The listeners that ask."""
    headers: list[FieldName] = Field(default_factory=list)
    """Request fields that OPA is told. No others: `Authorization` only if it stands here."""
    claims: list[str] | None = None
    """The token's claims that OPA is told; left out: all of them."""
    max_concurrent: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Questions on their way at once, and so connections."""
    max_waiting: Annotated[int, Field(ge=0, le=100_000)] = 1024
    """Requests that wait for one of those; what comes on top counts as a failure at once."""
    cache: CacheOptions = CacheOptions()
    ca_file: str | None = None
    """Authorities for an https `url` (PEM); left out: the system's."""
    token_env: str | None = None
    """Environment variable with the bearer token that OPA asks for."""


class Decision(NamedTuple):
    """What OPA said."""

    allow: bool
    reason: str


class OpaError(MeshError):
    """OPA could not be asked, or what it said is no decision."""


class Agent:
    """One OPA under one set of options: its connections, its decisions.

    Args:
        written: the options as the configuration has them.
        options: the same, checked.
        clock: for time-outs and the age of decisions.
        transport: stands in for the network (httpx's own seam).
    """

    def __init__(
        self,
        written: Mapping[str, Any],
        options: Options,
        clock: Clock = SYSTEM_CLOCK,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.written = written
        self.options = options
        self.headers = tuple(name.lower() for name in options.headers)
        self.pending = 0
        self.retired = False
        self._services = frozenset(options.services)
        self._clock = clock
        self._transport = transport
        self._slots = asyncio.Semaphore(options.max_concurrent)
        self._client: httpx.AsyncClient | None = None
        self._decisions: OrderedDict[bytes, tuple[float, Decision]] = OrderedDict()
        self._url = f"{options.url}/v1/data/{quote(options.path)}"
        self._token = None
        self._trust: ssl.SSLContext | bool = True
        if options.token_env is not None:
            self._token = os.environ.get(options.token_env)
            if not self._token:
                raise ConfigError(
                    f"plugins.opa.token_env: the environment has no {options.token_env}"
                )
        if options.ca_file is not None:
            try:
                self._trust = ssl.create_default_context(cafile=options.ca_file)
            except OSError as error:
                raise ConfigError(f"plugins.opa.ca_file: {error}") from None

    def __repr__(self) -> str:
        return f"<Agent {self._url} pending={self.pending} decisions={len(self._decisions)}>"

    def asks_about(self, exchange: Exchange) -> bool:
        """Whether this request is one that OPA decides about."""
        direction = self.options.direction
        if direction not in {"both", exchange.direction}:
            return False
        route = exchange.route
        return not self._services or (route is not None and route.service in self._services)

    def remembered(self, digest: bytes) -> Decision | None:
        """A decision about the very same input, if it is young enough."""
        found = self._decisions.get(digest)
        if found is None:
            return None
        if found[0] <= self._clock.monotonic():
            del self._decisions[digest]
            return None
        return found[1]

    def _remember(self, digest: bytes, decision: Decision) -> None:
        ttl = self.options.cache.ttl
        if ttl <= 0:
            return
        self._decisions[digest] = (self._clock.monotonic() + ttl, decision)
        self._decisions.move_to_end(digest)
        while len(self._decisions) > self.options.cache.entries:
            self._decisions.popitem(last=False)

    async def decide(self, body: bytes, digest: bytes) -> Decision:
        """Ask OPA.

        Raises:
            OpaError: it did not answer in time, or with what is no decision.
        """
        options = self.options
        if self.pending >= options.max_concurrent + options.max_waiting:
            raise OpaError("too many requests wait for OPA")
        self.pending += 1
        httpx = importlib.import_module("httpx")
        try:
            async with within(self._clock, options.timeout), self._slots:
                decision = await self._ask(body)
        except TimeoutError:
            raise OpaError(f"OPA has not answered within {options.timeout:g}s") from None
        except httpx.HTTPError as error:
            raise OpaError(f"OPA cannot be reached: {str(error) or repr(error)}") from error
        finally:
            self.pending -= 1
            if self.retired and not self.pending:
                await self.close()
        self._remember(digest, decision)
        return decision

    async def _ask(self, body: bytes) -> Decision:
        fields = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._token is not None:
            fields["Authorization"] = f"Bearer {self._token}"
        client = self._opened()
        async with client.stream("POST", self._url, content=body, headers=fields) as reply:
            data = b""
            async for piece in reply.aiter_raw():
                data += piece
                if len(data) > MAX_REPLY:
                    raise OpaError(f"OPA's reply is longer than {MAX_REPLY} bytes")
            if reply.status_code != _OK:
                raise OpaError(f"OPA answered {reply.status_code}")
        return read_reply(data)

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            httpx = importlib.import_module("httpx")
            most = self.options.max_concurrent
            self._client = httpx.AsyncClient(
                transport=self._transport,
                verify=self._trust,
                timeout=None,  # `within` bounds it.
                trust_env=False,
                limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
            )
        return self._client

    def retire(self, tasks: TaskSet) -> None:
        """Nobody new will ask; close when the last one has been answered."""
        self.retired = True
        if not self.pending and self._client is not None:
            tasks.start(self.close(), "close")

    async def close(self) -> None:
        """Close its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def read_reply(data: bytes) -> Decision:
    """The decision in the body of a Data API reply.

    Raises:
        OpaError: there is none in it. One that is undefined is a no, not an error.
    """
    try:
        reply = json.loads(data)
    except (ValueError, RecursionError):
        raise OpaError("OPA's reply is not JSON") from None
    if not isinstance(reply, dict):
        raise OpaError("OPA's reply is no JSON object")
    # A rule without a default is undefined where it is not true.
    if "result" not in reply:
        return Decision(allow=False, reason="the policy does not say that it may (undefined)")
    result = reply["result"]
    reason: Any = None
    if isinstance(result, dict):
        reason = result.get("reason")
        result = result.get("allow", False)
    if not isinstance(result, bool):
        raise OpaError('OPA\'s result is neither true or false nor {"allow": true or false}')
    text = reason if isinstance(reason, str) and reason else "the policy says no"
    return Decision(result, "".join(c for c in text if c.isprintable())[:MAX_REASON])


def input_of(exchange: Exchange, options: Options, headers: tuple[str, ...]) -> dict[str, Any]:
    """What OPA is told of a request, as `input`."""
    principal, route = exchange.principal, exchange.route
    claims = principal.claims
    if options.claims is not None:
        claims = {name: claims[name] for name in options.claims if name in claims}
    fields = {name: value for name in headers if (value := exchange.header(name)) is not None}
    return {
        "method": exchange.method,
        "path": exchange.path,
        "parsed_path": exchange.path.strip("/").split("/"),
        "query": exchange.query,
        "service": route.service if route is not None else None,
        "route": route.name if route is not None else None,
        "listener": exchange.listener.name,
        "direction": str(exchange.direction),
        "subject": principal.subject,
        "issuer": principal.issuer,
        "roles": list(principal.roles),
        "claims": dict(claims),
        "caller": exchange.peer,
        "headers": fields,
    }


class Opa:
    """The plugin `opa`.

    Args:
        clock: time.
        transport: stands in for the network (httpx's own seam).
    """

    def __init__(
        self, clock: Clock = SYSTEM_CLOCK, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._clock = clock
        self._transport = transport
        self._agents: list[Agent] = []
        """Of the newest configuration that has one, and of the one before, which may come back."""
        self._tasks = TaskSet(NAME)
        self.counts: Counter[str] = Counter()
        """`allowed`, `denied`, `remembered` and `failed`, since the start."""

    def __repr__(self) -> str:
        return f"<Opa {self._agents}>"

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Check the options; connections and decisions stay while the options do."""
        options = plugin_options(snapshot, NAME, Options)
        if options is None:
            return
        # Here, before the sidecar is ready: its import takes 0.3 s.
        importlib.import_module("httpx")
        written = snapshot.plugins[NAME]
        agent = self._known(written) or self._make(written, options)
        others = [known for known in self._agents if known is not agent]
        self._agents = [agent, *others[:1]]
        for old in others[1:]:
            old.retire(self._tasks)

    def _known(self, written: Mapping[str, Any]) -> Agent | None:
        for agent in self._agents:
            if agent.written is written or agent.written == written:
                return agent
        return None

    def _make(self, written: Mapping[str, Any], options: Options) -> Agent:
        return Agent(written, options, self._clock, self._transport)

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing to do where it is not configured."""
        return () if NAME in snapshot.plugins else ("hms_authorize", "hms_recheck")

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Have status and metrics tell what was decided."""
        mesh.add_status(NAME, self.status)
        mesh.add_metrics(NAME, self)

    @hookimpl
    async def hms_shutdown(self) -> None:
        """Close all connections."""
        for agent in self._agents:
            await agent.close()
        await self._tasks.close()

    def status(self) -> dict[str, Any]:
        """JSON-ready; no input."""
        return {"counts": dict(self.counts), "pending": sum(a.pending for a in self._agents)}

    def collect(self) -> Iterator[Any]:
        """For `/metrics`."""
        core = importlib.import_module("prometheus_client.core")
        family = core.CounterMetricFamily(
            "opa_decisions", "Requests by what OPA, or the memory of it, said.", labels=("outcome",)
        )
        for outcome in ("allowed", "denied", "failed"):
            family.add_metric((outcome,), self.counts[outcome])
        yield family
        yield core.CounterMetricFamily(
            "opa_decisions_remembered",
            "Of the allowed and denied ones, those for which OPA was not asked again.",
            value=self.counts["remembered"],
        )

    @hookimpl
    def hms_authorize(self, exchange: Exchange) -> Awaitable[None] | None:
        """Refuse what OPA does; does not wait where the decision is remembered."""
        agent = self._agent_of(exchange.snapshot)
        if not agent.asks_about(exchange):
            return None
        asked = {"input": input_of(exchange, agent.options, agent.headers)}
        body = json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.blake2b(body, digest_size=20).digest()
        decision = agent.remembered(digest)
        if decision is None:
            return self._ask(exchange, agent, body, digest)
        self.counts["remembered"] += 1
        self._apply(exchange, decision)
        return None

    @hookimpl
    def hms_recheck(self, exchange: Exchange) -> Awaitable[None] | None:
        """An open tunnel is judged as its request was."""
        if NAME not in exchange.snapshot.plugins:
            return None
        return self.hms_authorize(exchange)

    def _agent_of(self, snapshot: Snapshot) -> Agent:
        """That of the configuration which the request began with, whatever came in since."""
        written = snapshot.plugins[NAME]
        agent = self._known(written)
        if agent is None:
            # Held while two other configurations came in: it has one of its own, which ends with it.
            agent = self._make(written, Options.model_validate(dict(written)))
            agent.retired = True
        return agent

    async def _ask(self, exchange: Exchange, agent: Agent, body: bytes, digest: bytes) -> None:
        try:
            decision = await agent.decide(body, digest)
        except OpaError as error:
            self._failed(exchange, agent, error)
        else:
            self._apply(exchange, decision)

    def _apply(self, exchange: Exchange, decision: Decision) -> None:
        self.counts["allowed" if decision.allow else "denied"] += 1
        if not decision.allow:
            exchange.deny(403, Flag.RBAC, decision.reason)

    def _failed(self, exchange: Exchange, agent: Agent, error: OpaError) -> None:
        self.counts["failed"] += 1
        count = self.counts["failed"]
        # The 1st, 2nd, 4th, 8th … time: an OPA that is down must not fill a disk.
        if count & (count - 1) == 0:
            what = "let through" if agent.options.on_failure == "open" else "refused"
            logger.warning("%s; the request was %s (%d so far)", error, what, count)
        if agent.options.on_failure == "closed":
            detail = "the policy agent could not be asked, and nothing passes without it; try again"
            exchange.deny(503, Flag.RBAC, detail)
