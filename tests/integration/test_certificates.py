"""Certificates that renew themselves, a root that is replaced, and joining: with real processes."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import pytest

from hms_addons.identity.svid import Svid, load_certificates
from hms_addons.identity.tls_context import client_context
from hms_addons.identity.trust_bundle import TrustBundle
from hms_addons.state_folder import StateFolder
from tests.integration.basics import Closing, free_port, until
from tests.integration.clients import Connection, fetch
from tests.integration.control_kit import Control, hms, hms_here
from tests.integration.load import Load
from tests.integration.processes import hms_sidecar
from tests.integration.servers import Upstream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.control_kit import Sidecar

pytestmark = pytest.mark.slow

TARGET = "auth-svc.svc"

SECONDS = 60 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 20
"""Of load while certificates are renewed every other second."""


class Enrolled(Closing):
    """A sidecar that a control plane stands behind.

    Args:
        control: joins it.
        service: stands beside it.
        folder: keeps its state there, in a folder of the service's name.
        app: port of the app; None if there is none.
        token: a join token; None makes one, "" gives none.
        token_file: where the token is read, instead.
    """

    def __init__(
        self,
        control: Control,
        service: str,
        folder: Path,
        *,
        app: int | None = None,
        token: str | None = None,
        token_file: Path | None = None,
    ) -> None:
        self.service = service
        self.state = folder / service
        self.port, self.peers, self.admin = free_port(), free_port(), free_port()
        made = made_token(control, service) if token is None else token
        if token_file is not None:
            token_file.write_text(made)
        self.program = hms_sidecar(
            *("--control", f"https://127.0.0.1:{control.port}"),
            *("--ca-pin", control.exports["HMS_CA_PIN"]),
            *("--service", service, "--state", self.state),
            *("--outbound", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}"),
            *(
                ("--app", "off", "--inbound", "off")
                if app is None
                else ("--app", f"http://127.0.0.1:{app}", "--inbound", f"127.0.0.1:{self.peers}")
            ),
            *(() if token_file is None else ("--token-file", token_file)),
            env={"HMS_TOKEN": made} if made and token_file is None else {},
        )

    def close(self) -> None:
        """See to it that it is gone."""
        self.program.close()

    def wait_ready(self) -> Self:
        """Until it takes requests."""
        self.program.wait_listening(self.admin)
        until(lambda: fetch(self.admin, "GET", "/ready").status == 200, "readiness")
        return self

    @property
    def certificate(self) -> dict[str, Any]:
        """The SVID in use, as the admin port shows it."""
        host = f"127.0.0.1:{self.admin}"
        answer = fetch(self.admin, "GET", "/certs", "Accept: application/json", host=host)
        found: dict[str, Any] = answer.json[0]
        return found

    def reaches(self) -> bool:
        """Whether a request to auth-svc is answered."""
        return fetch(self.port, "GET", "/", host=TARGET).status == 200

    def assert_ends_well(self) -> None:
        """It ends when it is told to, and nothing went wrong inside."""
        assert self.program.stop() == 0
        assert "Traceback" not in self.program.output


def made_token(control: Control, service: str, ttl: float = 600) -> str:
    answer = control.admin("POST", "/v1/tokens", json={"service": service, "ttl": ttl})
    assert answer.status == 201
    return str(answer.json["token"])


def phase(control: Control) -> str:
    return str(control.admin("GET", "/v1/ca").json["phase"])


@pytest.fixture(scope="module")
def app() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@contextmanager
def running(folder: Path, lifetime: str) -> Iterator[Control]:
    """A control plane whose SVIDs live so long."""
    with Control(folder / "control", "--svid-lifetime", lifetime) as control:
        yield control
        assert "Traceback" not in control.program.output


@contextmanager
def meshed(control: Control, app: Upstream, folder: Path) -> Iterator[Mesh]:
    """claims-svc and auth-svc; the first can reach the second."""
    with (
        Enrolled(control, "auth-svc", folder, app=app.port) as callee,
        Enrolled(control, "claims-svc", folder) as caller,
    ):
        callee.wait_ready()
        caller.wait_ready()
        until(caller.reaches, "registration of auth-svc")
        yield caller, callee
        for sidecar in (caller, callee):
            if not sidecar.program.ended:
                sidecar.assert_ends_well()


type Mesh = tuple[Enrolled, Enrolled]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """A control plane as it comes."""
    with running(tmp_path, "24h") as control:
        yield control


# -- renewal ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brisk(
    app: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Control, Mesh]]:
    """A mesh whose certificates are renewed every two seconds."""
    folder = tmp_path_factory.mktemp("brisk")
    with running(folder, "4s") as control, meshed(control, app, folder) as mesh:
        yield control, mesh


def test_certificates_renewed_every_two_seconds_under_load_fail_no_request(
    brisk: tuple[Control, Mesh],
) -> None:
    _, mesh = brisk
    before = [sidecar.certificate["generation"] for sidecar in mesh]
    with Load(mesh[0].port, TARGET) as load:
        load.run(SECONDS)
    assert load.failures == []
    assert load.answered > SECONDS * 50
    for sidecar, generation in zip(mesh, before, strict=True):
        assert sidecar.certificate["generation"] - generation >= SECONDS / 2 * 0.7


def test_a_root_replaced_under_load_fails_no_request(brisk: tuple[Control, Mesh]) -> None:
    control, mesh = brisk
    old = control.exports["HMS_CA_PIN"]
    with Load(mesh[0].port, TARGET) as load:
        load.run(1)
        begun = hms(control, "ca", "rotate-root")
        assert begun.returncode == 0, begun.stdout
        until(lambda: phase(control) == "signing", "signing by the new root")
        until(lambda: phase(control) == "steady", "retirement of the old root")
        load.run(5)
    assert load.failures == []
    outdated = hms(control, "ca", "show")
    assert outdated.returncode == 1
    assert "give the new --ca-pin" in outdated.stdout
    new = control.exports["HMS_CA_PIN"] = control.admin("GET", "/v1/ca").json["pin"]
    assert new in begun.stdout, "the operator was told"
    assert new != old
    shown = json.loads(hms_here(control, "ca", "show", "--json").stdout)
    assert [root["pin"] for root in shown["roots"]] == [new]
    until(lambda: not any(map(trusts_two_roots, mesh)), "news of it everywhere")


# -- a root that is gone ---------------------------------------------------------------------------


def test_peers_of_a_retired_root_are_refused(app: Upstream, tmp_path: Path) -> None:
    with running(tmp_path, "30s") as control, meshed(control, app, tmp_path) as mesh:
        _peers_of_a_retired_root_are_refused(control, mesh)


def _peers_of_a_retired_root_are_refused(control: Control, mesh: Mesh) -> None:
    caller, callee = mesh
    stranger = control.join("claims-svc")
    assert lets_in(callee, stranger.context)
    with Load(caller.port, TARGET, kept=2, fresh=1) as load:
        control.admin("POST", "/v1/ca/rotate-root")
        until(lambda: all(map(trusts_two_roots, mesh)), "trust in the new root everywhere")
        control.admin("POST", "/v1/ca/rotate-root", json={"now": True})
        assert phase(control) == "signing"
        late = control.join("claims-svc")
        roots = late.material.bundle.roots
        until(lambda: all(below(roots[1], sidecar) for sidecar in mesh), "renewal everywhere")
        control.admin("POST", "/v1/ca/rotate-root", json={"now": True})
        until(lambda: not trusts_two_roots(callee), "news of the retirement")
    assert load.failures == []
    assert lets_in(callee, now_trusting(control, late))
    assert not lets_in(callee, now_trusting(control, stranger))
    assert control.ask("GET", "/v1/bundle", context=now_trusting(control, late)).status == 200
    with pytest.raises((OSError, EOFError)):
        control.ask("GET", "/v1/bundle", context=now_trusting(control, stranger))


def trusts_two_roots(sidecar: Enrolled) -> bool:
    content = StateFolder(sidecar.state).read("bundle.json")
    return content is not None and len(json.loads(content)["keys"]) == 2


def below(root: Any, sidecar: Enrolled) -> bool:
    """Whether a sidecar's SVID stands below a root."""
    content = StateFolder(sidecar.state).read("svid.pem")
    assert content is not None
    return bool(load_certificates(content)[-1].issuer == root.subject)


def lets_in(callee: Enrolled, shows: ssl.SSLContext) -> bool:
    """Whether a sidecar answers such a peer."""
    try:
        with Connection(callee.peers, shows) as peer:
            return peer.exchange("GET", "/").status == 200
    except (OSError, EOFError):
        return False


def now_trusting(control: Control, sidecar: Sidecar) -> ssl.SSLContext:
    """Shows what the sidecar has got, and trusts what is to be trusted now."""
    return client_context(sidecar.material.svid, control.bundle())


# -- an SVID that runs out -------------------------------------------------------------------------


def test_whose_svid_has_expired_says_so_and_joins_anew_with_a_new_token(
    app: Upstream, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    with (
        running(tmp_path, "6s") as control,
        Enrolled(control, "auth-svc", tmp_path, app=app.port, token_file=token) as sidecar,
    ):
        sidecar.wait_ready()
        assert sidecar.certificate["problem"] is None
        assert control.program.stop() == 0
        until(lambda: "cannot be reached" in (sidecar.certificate["problem"] or ""), "trouble")
        until(lambda: fetch(sidecar.admin, "GET", "/ready").status == 503, "no readiness")
        assert (
            b"the certificate of mesh_certs has expired"
            in fetch(sidecar.admin, "GET", "/ready").body
        )
        until(lambda: "the old one expired at 20" in sidecar.program.output, "the log tells")
        assert str(sidecar.certificate["problem"]).startswith("expired at 20")
        with Control(control.data, "--svid-lifetime", "6s", port=control.port) as again:
            again.exports |= control.exports
            remedy = "join anew with a new token: `hms token create --service auth-svc`"
            sidecar.program.wait_for("does not know this sidecar any longer: its SVID expired at ")
            until(lambda: remedy in sidecar.certificate["problem"], "the remedy")
            token.write_text(made_token(again, "auth-svc"))
            until(lambda: fetch(sidecar.admin, "GET", "/ready").status == 200, "readiness")
            assert sidecar.certificate["problem"] is None
            sidecar.assert_ends_well()


# -- joining and coming back -----------------------------------------------------------------------


def test_a_token_joins_one_sidecar_of_its_service(
    control: Control, app: Upstream, tmp_path: Path
) -> None:
    token = made_token(control, "auth-svc")
    with Enrolled(control, "auth-svc", tmp_path, app=app.port, token=token) as first:
        first.wait_ready()
        first.assert_ends_well()
        assert token not in first.program.output
    other = made_token(control, "auth-svc")
    for text, service, said in (
        (token, "auth-svc", "has been used"),
        (other, "payments-svc", "is for 'auth-svc', not 'payments-svc'"),
    ):
        with Enrolled(control, service, tmp_path / "others", token=text) as refused:
            assert refused.program.wait() == 1
            assert said in refused.program.output
            assert "Traceback" not in refused.program.output
            assert text not in refused.program.output


def test_a_sidecar_comes_back_without_a_control_plane(
    control: Control, app: Upstream, tmp_path: Path
) -> None:
    with meshed(control, app, tmp_path) as mesh:
        before = [sidecar.certificate["serial"] for sidecar in mesh]
        assert control.program.stop() == 0
    with Enrolled(control, "auth-svc", tmp_path, app=app.port, token="") as again:
        again.wait_ready()
        with Enrolled(control, "claims-svc", tmp_path, token="") as asking:
            asking.wait_ready()
            assert [asking.certificate["serial"], again.certificate["serial"]] == before
            assert lets_in(again, kept(asking))
            asking.assert_ends_well()
        again.assert_ends_well()


def kept(sidecar: Enrolled) -> ssl.SSLContext:
    """Shows what a sidecar has kept, and trusts that too."""
    state = StateFolder(sidecar.state)
    pem, document = state.read("svid.pem"), state.read("bundle.json")
    assert pem is not None
    assert document is not None
    svid = Svid.from_pem(pem, pem, now=time.time())
    return client_context(svid, TrustBundle.from_spiffe_json("mpsa.mil", document))


def test_a_corrupt_state_is_set_aside_and_the_sidecar_joins_anew(
    control: Control, app: Upstream, tmp_path: Path
) -> None:
    with Enrolled(control, "auth-svc", tmp_path, app=app.port) as first:
        first.wait_ready()
        first.assert_ends_well()
    path = first.state / "svid.pem"
    path.write_bytes(path.read_bytes()[:-30])
    with Enrolled(control, "auth-svc", tmp_path, app=app.port) as again:
        again.wait_ready()
        assert "svid.pem does not fit its checksum; set aside" in again.program.output
        again.assert_ends_well()
