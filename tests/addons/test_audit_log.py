from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.addons.audit_log import AuditLog
from hms_addons.config.policy import Decision
from hms_addons.config.snapshot import AuditLog as Spec
from hms_addons.config.snapshot import Direction, Rbac
from hms_addons.errors import ConfigError, Fault, Flag
from hms_addons.exchange import Permit, Principal
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange, make_listener, make_snapshot
from tests.fakes.mesh import FakeMesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange

FINE = Decision(allowed=True, policy="clerks", reason="policy 'clerks' allows it")


class Bench:
    """The plugin, and the file that it writes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "audit.log"
        self.plugin = AuditLog(clock=FakeClock())
        self.mesh = FakeMesh()
        self.plugin.hms_startup(self.mesh.mesh)

    def configure(self, **changes: Any) -> Snapshot:
        names = {"service", "trust_domain"} & changes.keys()
        outer = {name: changes.pop(name) for name in names}
        spec = Spec(**{"path": str(self.path)} | changes)
        snapshot = make_snapshot(rbac=Rbac(audit_log=spec), **outer)
        self.plugin.hms_configure(snapshot)
        return snapshot

    def run(self, exchange: Exchange, decision: Decision | None = FINE) -> Exchange:
        """As the chain does."""
        exchange.decision = decision
        if exchange.failure is None:
            self.plugin.hms_prepare(exchange)
            exchange.permit = Permit()
        self.plugin.hms_complete(exchange)
        return exchange

    async def lines(self) -> list[dict[str, Any]]:
        await self.plugin.hms_shutdown()
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.plugin.hms_shutdown()
    assert len(bench.plugin._tasks) == 0


def denied(fault: Fault = Fault.POLICY_DENIED, detail: str = "policy 'no' denies it") -> Exchange:
    exchange = make_exchange()
    exchange.fail(fault, detail)
    return exchange


# -- what a line says -----------------------------------------------------------------------------


async def test_an_allowed_request_says_who_what_and_by_which_policy(bench: Bench) -> None:
    bench.configure()
    exchange = make_exchange("/verify-id?ssn=123", headers=[("Authorization", "Bearer secret")])
    exchange.peer = "spiffe://mpsa.mil/svc/claims-svc"
    exchange.principal = Principal("sgt-doe", ("CLERK",), {"x": "private"}, "https://id")
    bench.run(exchange)
    (line,) = await bench.lines()
    assert line == {
        "time": "2027-01-15T08:00:00.000+00:00",
        "request_id": "7f3c",
        "decision": "allowed",
        "policy": "clerks",
        "mode": "enforce",
        "subject": "sgt-doe",
        "roles": ["CLERK"],
        "issuer": "https://id",
        "caller": "spiffe://mpsa.mil/svc/claims-svc",
        "peer": "127.0.0.1:40000",
        "direction": "inbound",
        "listener": "peers",
        "method": "GET",
        "path": "/verify-id",
        "service": "auth-svc",
        "route": "to-auth-svc",
        "status": None,
        "flag": None,
        "reason": "policy 'clerks' allows it",
    }
    text = bench.path.read_text()
    assert "secret" not in text
    assert "ssn" not in text
    assert "private" not in text


async def test_a_refusal_says_why(bench: Bench) -> None:
    bench.configure()
    bench.run(denied(), Decision(allowed=False, policy="no", reason="policy 'no' denies it"))
    bench.run(denied(Fault.TOKEN_INVALID, "the token has expired"), None)
    custom = make_exchange()
    custom.deny(403, Flag.UO, "not on Sundays")
    bench.run(custom)
    found = [
        (line["decision"], line["policy"], line["status"], line["flag"], line["reason"])
        for line in await bench.lines()
    ]
    assert found == [
        ("denied", "no", 403, "RBAC", "policy 'no' denies it"),
        ("denied", None, 401, "JWT", "the token has expired"),
        ("denied", "clerks", 403, "UO", "not on Sundays"),
    ]


async def test_a_plugin_that_fails_has_refused(bench: Bench) -> None:
    bench.configure()
    bench.run(denied(Fault.PLUGIN_ERROR, "plugin 'x' failed"))
    (line,) = await bench.lines()
    assert (line["decision"], line["flag"]) == ("denied", "PE")


async def test_what_no_policy_was_asked_about_is_no_decision(bench: Bench) -> None:
    bench.configure()
    lost = denied(Fault.NO_ROUTE, "no route")
    lost.route = None
    bench.run(lost, None)
    assert await bench.lines() == []


async def test_an_allowed_request_that_fails_later_was_allowed(bench: Bench) -> None:
    bench.configure()
    bench.run(denied(Fault.NO_POLICY_VERSION, "no version"))
    (line,) = await bench.lines()
    assert (line["decision"], line["status"]) == ("allowed", None)


async def test_a_tunnel_that_is_closed_by_a_new_policy_has_a_line_more(bench: Bench) -> None:
    bench.configure()
    exchange = make_exchange()
    exchange.decision = FINE
    bench.plugin.hms_prepare(exchange)
    exchange.permit = Permit()
    exchange.fail(Fault.POLICY_DENIED, "the policy has changed")
    bench.plugin.hms_complete(exchange)
    assert [line["decision"] for line in await bench.lines()] == ["allowed", "denied"]


async def test_what_an_audited_policy_would_deny_says_so(bench: Bench) -> None:
    bench.configure(denied_only=True)
    trial = FINE._replace(would_deny="policy 'trial' denies it", audit_policy="trial")
    bench.run(make_exchange(), trial)
    bench.run(make_exchange())
    (line,) = await bench.lines()
    assert (line["decision"], line["mode"], line["would_deny"]) == ("allowed", "audit", True)
    assert (line["policy"], line["reason"]) == ("trial", "policy 'trial' denies it")


async def test_denials_are_written_where_only_they_are(bench: Bench) -> None:
    bench.configure(denied_only=True)
    bench.run(make_exchange())
    bench.run(denied())
    assert [line["decision"] for line in await bench.lines()] == ["denied"]


async def test_who_calls_on_an_outbound_listener_is_this_service(bench: Bench) -> None:
    snapshot = bench.configure(service="claims-svc", trust_domain="mpsa.mil")
    listener = make_listener(direction=Direction.OUTBOUND)
    bench.run(make_exchange(snapshot=snapshot, listener=listener))
    (line,) = await bench.lines()
    assert line["caller"] == "spiffe://mpsa.mil/svc/claims-svc"


async def test_what_a_caller_chooses_is_cut_and_escaped(bench: Bench) -> None:
    bench.configure()
    exchange = make_exchange("/" + "p" * 5000)
    exchange.request_id = '"\n{"forged": 1}\x1b[31m\ud800' + "i" * 5000
    exchange.principal = Principal("s" * 5000, tuple("r" * 5000 for _ in range(99)))
    bench.run(exchange)
    await bench.plugin.hms_shutdown()
    text = bench.path.read_text()
    assert text.count("\n") == 1
    assert text.isascii()
    assert "\x1b" not in text
    assert len(text) < 15_000
    line = json.loads(text)
    assert len(line["roles"]) == 32
    assert line["path"].endswith("p…")


# -- the file -------------------------------------------------------------------------------------


async def test_the_file_is_the_owners_alone(bench: Bench) -> None:
    bench.configure()
    assert stat.S_IMODE(bench.path.stat().st_mode) == 0o600
    bench.run(make_exchange())
    bench.path.rename(bench.path.with_suffix(".1"))
    assert len(await bench.lines()) == 1, "opened anew, as logrotate expects"
    assert stat.S_IMODE(bench.path.stat().st_mode) == 0o600


def _missing(path: Path) -> Path:
    return path / "missing" / "audit.log"


def _folder(path: Path) -> Path:
    return path


def _pipe(path: Path) -> Path:
    os.mkfifo(path / "pipe")
    return path / "pipe"


@pytest.mark.parametrize(
    ("make", "why"),
    [(_missing, "No such file"), (_folder, "Is a directory"), (_pipe, "a pipe")],
)
def test_a_file_that_cannot_be_written_is_a_fault_of_the_configuration(
    bench: Bench, tmp_path: Path, make: Callable[[Path], Path], why: str
) -> None:
    with pytest.raises(
        ConfigError, match=rf"^rbac\.audit_log\.path: .* cannot be written: .*{why}"
    ):
        bench.configure(path=str(make(tmp_path)))


async def test_a_refused_candidate_leaves_the_old_file_in_use(bench: Bench) -> None:
    old = bench.configure()
    bench.configure(path=str(bench.path) + ".other")
    bench.plugin.hms_configure(old)
    bench.run(make_exchange(snapshot=old))
    assert len(await bench.lines()) == 1


async def test_the_same_file_goes_on_over_changes_and_another_is_closed(bench: Bench) -> None:
    bench.configure()
    bench.run(make_exchange())
    first = bench.plugin._state and bench.plugin._state.log
    bench.configure(denied_only=True)
    assert bench.plugin._state is not None
    assert bench.plugin._state.log is first
    other = bench.path.with_suffix(".other")
    bench.configure(path=str(other))
    bench.configure(path=str(other), denied_only=True)
    bench.run(denied())
    assert len(await bench.lines()) == 1
    assert len(other.read_text().splitlines()) == 1


async def test_status_tells_of_what_was_dropped(bench: Bench) -> None:
    assert bench.mesh.shown("audit_log") is None
    bench.configure()
    bench.run(make_exchange())
    await bench.lines()
    bench.run(make_exchange())
    assert bench.mesh.shown("audit_log") == {
        "path": str(bench.path),
        "written": 1,
        "waiting_chars": 0,
        "dropped": 1,
        "failing": False,
    }


def test_nothing_is_asked_of_it_where_no_file_is_named() -> None:
    plugin = AuditLog(clock=FakeClock())
    snapshot = make_snapshot()
    plugin.hms_configure(snapshot)
    assert set(plugin.hms_idle_hooks(snapshot)) == {"hms_prepare", "hms_complete"}
    exchange = make_exchange()
    plugin.hms_complete(exchange)
    assert repr(plugin) == "<AuditLog None>"


async def test_its_hooks_run_where_a_file_is_named(bench: Bench) -> None:
    assert list(bench.plugin.hms_idle_hooks(bench.configure())) == []
    assert "audit log" in repr(bench.plugin)
