"""What a route can do with its traffic: copy it, and lead it elsewhere when nobody is left."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from scripts.demonstration.children import until
from scripts.demonstration.mesh_files import to_yaml
from scripts.demonstration.reload_steps import reimburse
from scripts.demonstration.report import indented
from scripts.demonstration.verify import statuses_of
from scripts.lost_package.json_service import JsonHandler, make_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.demonstration.calls import Answer
    from scripts.demonstration.lost_package_mesh import LostPackageMesh
    from scripts.demonstration.report import Report

COPIED: Final = 3
PATIENCE: Final = 10.0
"""Seconds for copies to arrive, and for breakers to open."""


def mirror(mesh: LostPackageMesh, report: Report) -> None:
    """Refunds are copied to the next version, whose answers nobody sees."""
    report.step(
        "A mirror",
        "The next version of Payments-SVC gets a copy of each refund, and answers 500 to all. The next "
        "steps' standby and fallback come with the same edit.",
    )
    mesh.next_port = mesh.ports.take()
    changed = mesh.overlay.shape_payments(mesh.standby.port, mesh.next_port)
    report.show(indented(to_yaml(changed)))
    status = mesh.reload(mesh.overlay.text())
    report.check(status["rejected"] is None, "it is in force", str(status["rejected"]))
    with _next_version(mesh.next_port) as copies:
        answers = [reimburse(mesh) for _ in range(COPIED)]
        report.check(
            all(answer.status == HTTPStatus.ACCEPTED for answer in answers),
            "callers get the answers of the version in use",
            statuses_of(answers),
        )
        until(
            lambda: len(copies) == COPIED,
            within=PATIENCE,
            what="copies should arrive",
            needs=[mesh.running_claims],
        )
        report.check(True, f"and the next version got {len(copies)} copies: {copies[0]}")  # noqa: FBT003 - shown as the others are


@contextmanager
def _next_version(port: int) -> Iterator[list[str]]:
    """A Payments-SVC that nobody should see yet; what it has been asked."""
    copies: list[str] = []

    class NextVersion(JsonHandler):
        """Takes everything down, and fails."""

        def do_POST(self) -> None:  # noqa: N802 - the name http.server looks for
            """Answer 500."""
            copies.append(f"{self.command} {self.path} {self.read_json()}")
            self.reply(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "not ready yet"})

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as the base has it
            """Say nothing."""

    server = make_server(NextVersion, "payments-next", port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield copies
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


def failover(mesh: LostPackageMesh, report: Report) -> None:
    """Payments-SVC dies; its standby, a cluster of its own, takes over."""
    report.step(
        "A failover",
        f"{mesh.payments.name} and its sidecar are killed; the cluster names a standby.",
    )
    answer = reimburse(mesh)
    report.show(f"before: {answer.describe()}")
    first = answer.json().get("by") if answer.status == HTTPStatus.ACCEPTED else None
    report.check(first == mesh.payments.name, "the first one answers", answer.describe())
    mesh.processes.kill([mesh.payments])
    answers = [reimburse(mesh, mesh.issuer.token(subject=f"soldier-{n}")) for n in range(4)]
    report.show(f"after:  {answers[-1].describe()}")
    report.check(
        all(answer.status == HTTPStatus.ACCEPTED for answer in answers),
        "no refund failed: what could not be delivered went to the standby",
        statuses_of(answers),
    )
    by = {answer.json().get("by") for answer in answers}
    report.check(by == {mesh.standby.name}, f"{mesh.standby.name} has carried them out", str(by))


def fallback(mesh: LostPackageMesh, report: Report) -> None:
    """The standby dies too; the route answers by itself, and says so."""
    report.step("A fallback", f"{mesh.standby.name} is killed too; the route has an answer ready.")
    mesh.processes.kill([mesh.standby])
    answer = reimburse(mesh, mesh.issuer.token(subject="the-last"))
    report.show(answer.describe())
    for name in ("X-HMS-Fallback", "X-HMS-Flag"):
        report.show(f"{name}: {answer.headers[name]}")
    queued = answer.status == HTTPStatus.ACCEPTED and answer.json().get("queued") is True
    report.check(queued, "the caller is told that it is queued", answer.describe())
    marked = answer.headers["X-HMS-Fallback"]
    report.check(marked, "marked, so that nobody takes it for the real one", str(marked))
    both = [mesh.payments, mesh.standby]
    mesh.restart(both)

    def back() -> bool:
        states = mesh.endpoint_states("payments-svc")
        if states[mesh.payments.address]["state"] != "open":
            again.append(reimburse(mesh, mesh.issuer.token(subject="the-next")))
        return bool(again) and again[-1].headers["X-HMS-Fallback"] is None

    again: list[Answer] = []
    until(back, within=PATIENCE, what="payments should be back", needs=[mesh.running_claims])
    by = again[-1].json().get("by")
    report.check(by == mesh.payments.name, f"both are started again, and {by} answers", str(by))
