"""`audit_log`: a JSON line for every authorisation decision: who, what, by which policy, allowed or not.

    authorize ──all agreed──▶ prepare: "allowed"        complete: "denied", or what became of a tunnel

A line is written when the decision is made, not when the answer ends: a tunnel may last for days. It
holds no token, no query and no header's value; the texts that a caller chooses are cut and escaped.
`LineLog` keeps the disk away from the event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.policy import own_caller
from hms_addons.config.snapshot import Direction
from hms_addons.errors import ConfigError, Flag
from hms_addons.hookspecs import hookimpl
from hms_addons.line_log import STDOUT, LineLog
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import AuditLog as AuditLogSpec
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh

NAME: Final = "audit_log"
"""The plugin's, and its key in `exchange.notes`."""
CLOSING: Final = 5.0
"""Seconds that a file is given to take what is left."""
MODE: Final = 0o600
"""Of the file: it says who does what."""

_PATH: Final = 1024
_TEXT: Final = 256
_REASON: Final = 500
_ROLES: Final = 32
_REFUSALS: Final = frozenset({Flag.RBAC, Flag.JWT})
_FORBIDDEN: Final = frozenset({401, 403})


class _State(NamedTuple):
    """What one snapshot asks for."""

    snapshot: Snapshot
    spec: AuditLogSpec | None
    log: LineLog | None
    own: str | None
    """Who calls on outbound listeners."""


class AuditLog:
    """The built-in plugin `audit_log`.

    Args:
        clock: the time of a decision.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._tasks = TaskSet(NAME)
        self._state: _State | None = None
        self._previous: _State | None = None
        self._retired: list[LineLog] = []

    def __repr__(self) -> str:
        return f"<AuditLog {self._state.log if self._state else None}>"

    # -- life -----------------------------------------------------------------------------------

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Open the file once, so that one that cannot be is a fault of the configuration."""
        before, newest = self._previous, self._state
        state = before if before is not None and before.snapshot is snapshot else None
        if state is None:
            spec = snapshot.rbac.audit_log
            state = _State(snapshot, spec, self._log_for(spec), own_caller(snapshot))
        self._previous, self._state = newest, state
        in_use = {id(kept.log) for kept in (self._previous, self._state) if kept is not None}
        if before is not None and before.log is not None and id(before.log) not in in_use:
            self._retired.append(before.log)  # at once: a stop may come before the task has begun
            self._tasks.start(self._retire(before.log), "close")

    async def _retire(self, log: LineLog) -> None:
        """No request can come to it any more but one that outlived two changes."""
        await log.close(CLOSING)
        self._retired.remove(log)

    def _log_for(self, spec: AuditLogSpec | None) -> LineLog | None:
        if spec is None:
            return None
        for state in (self._state, self._previous):
            if state is not None and state.log is not None and state.log.path == spec.path:
                return state.log
        _try_out(spec.path)
        return LineLog(spec.path, self._clock, "audit log", mode=MODE)

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing is logged where no file is named."""
        return () if snapshot.rbac.audit_log is not None else ("hms_prepare", "hms_complete")

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Tell how many lines there are, and were dropped."""
        mesh.add_status(NAME, self._status)

    def _status(self) -> dict[str, Any] | None:
        log = self._state.log if self._state is not None else None
        if log is None:
            return None
        return {
            "path": log.path,
            "written": log.written,
            "waiting_chars": log.waiting,
            "dropped": log.dropped,
            "failing": log.failing,
        }

    @hookimpl
    async def hms_shutdown(self) -> None:
        """Write what is left."""
        in_use = {
            id(s.log): s.log for s in (self._previous, self._state) if s is not None and s.log
        }
        await asyncio.gather(*(log.close(CLOSING) for log in (*in_use.values(), *self._retired)))
        await self._tasks.close()

    # -- a request ------------------------------------------------------------------------------

    def _state_of(self, exchange: Exchange) -> _State | None:
        previous = self._previous
        if previous is not None and previous.snapshot is exchange.snapshot:
            return previous
        return self._state

    @hookimpl(trylast=True)
    def hms_prepare(self, exchange: Exchange) -> None:
        """Everybody has agreed."""
        exchange.notes[NAME] = True
        self._write(exchange, allowed=True)

    @hookimpl
    def hms_complete(self, exchange: Exchange) -> None:
        """Somebody refused; or did so later, to a tunnel that was open when the policy changed."""
        failure, told = exchange.failure, NAME in exchange.notes
        if failure is not None and (
            failure.flag in _REFUSALS
            or (not told and (failure.status in _FORBIDDEN or failure.flag is Flag.PE))
        ):
            if exchange.route is not None or failure.flag in _REFUSALS:
                self._write(exchange, allowed=False)
        elif not told and exchange.decision is not None:
            self._write(exchange, allowed=exchange.decision.allowed)

    def _write(self, exchange: Exchange, *, allowed: bool) -> None:
        state = self._state_of(exchange)
        if state is None or state.spec is None or state.log is None:
            return
        decision = exchange.decision
        would_deny = decision is not None and decision.would_deny is not None
        if allowed and state.spec.denied_only and not would_deny:
            return
        line = line_of(exchange, self._clock.wall(), state.own, allowed=allowed)
        state.log.write(json.dumps(line, separators=(",", ":")))


def line_of(exchange: Exchange, now: float, own: str | None, *, allowed: bool) -> dict[str, Any]:
    """What the log says of a decision, as JSON-ready types.

    Args:
        exchange: judged.
        now: seconds since the epoch.
        own: who calls where the listener is outbound: this sidecar's own service.
        allowed: it may go on.
    """
    inbound = exchange.listener.direction is Direction.INBOUND
    principal, decision, failure = exchange.principal, exchange.decision, exchange.failure
    route, refused = exchange.route, None if allowed else failure
    reason = refused.detail if refused is not None else decision.reason if decision else None
    found = {
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        "request_id": _cut(exchange.request_id, _TEXT),
        "decision": "allowed" if allowed else "denied",
        "policy": None if decision is None else decision.policy,
        "mode": "enforce",
        "subject": None if principal.subject is None else _cut(principal.subject, _TEXT),
        "roles": [_cut(role, _TEXT) for role in principal.roles[:_ROLES]],
        "issuer": None if principal.issuer is None else _cut(principal.issuer, _TEXT),
        "caller": exchange.peer if inbound else own,
        "peer": _address(exchange),
        "direction": str(exchange.listener.direction),
        "listener": exchange.listener.name,
        "method": _cut(exchange.method, _TEXT),
        "path": _cut(exchange.path, _PATH),
        "service": None if route is None else route.service,
        "route": None if route is None else _cut(route.name, _TEXT),
        "status": None if refused is None else refused.status,
        "flag": None if refused is None else str(refused.flag),
        "reason": None if reason is None else _cut(reason, _REASON),
    }
    if allowed and decision is not None and decision.would_deny is not None:
        # What an audited policy would have done is what the line is about.
        found |= {
            "mode": "audit",
            "would_deny": True,
            "policy": decision.audit_policy,
            "reason": _cut(decision.would_deny, _REASON),
        }
    return found


def _address(exchange: Exchange) -> str | None:
    client = getattr(exchange.downstream, "client", None)
    peername: Sequence[Any] | None = getattr(client, "peername", None)
    return None if not peername else f"{peername[0]}:{peername[1]}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


def _try_out(path: str) -> None:
    """Open the file as the log will.

    Raises:
        ConfigError: that cannot be done.
    """
    if path == STDOUT:
        return
    try:
        if Path(path).exists() and stat.S_ISFIFO(Path(path).stat().st_mode):
            message = "it is a pipe, which may block"
            raise OSError(message)  # noqa: TRY301 - told like the others
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        os.close(os.open(path, flags, MODE))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        message = f"rbac.audit_log.path: {path} cannot be written: {why}"
        raise ConfigError(message) from error
