from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from hms_addons.control.auth import (
    ADMIN_PREFIX,
    NOBODY,
    PERMISSIONS,
    AdminTokens,
    Authenticator,
    AuthError,
    Caller,
    Kind,
    Peer,
    authorize,
    authorize_service,
)
from hms_addons.control.store.sqlite import SqliteStore
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import PeerLeaf
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

JOIN = "hms1.0123456789ab." + "x" * 43


def spiffe(path: str = "/svc/claims-svc") -> SpiffeId:
    return SpiffeId("mpsa.mil", path)


class Front:
    """An authenticator with an admin token."""

    def __init__(
        self, token: str, clock: FakeClock, store: SqliteStore, admins: AdminTokens
    ) -> None:
        self.token = token
        self.clock = clock
        self.store = store
        self.admins = admins
        self.authenticator = Authenticator(admins, clock)

    def peer(self, path: str = "/svc/claims-svc", begin: float = -60, end: float = 3600) -> Peer:
        now = self.clock.wall()
        return Peer(PeerLeaf(spiffe(path), now + begin, now + end))

    def identify(self, authorization: str | None = None, peer: Peer = NOBODY) -> Caller:
        return self.authenticator.identify(authorization, peer, "192.0.2.7")


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    clock = FakeClock()
    store = await SqliteStore.open(tmp_path / "control.db", clock)
    admins = AdminTokens(store, clock)
    token = await admins.load()
    assert token is not None
    await admins.mark_shown()
    yield Front(token, clock, store, admins)
    await store.close()


# -- the admin token -------------------------------------------------------------------------------


async def test_the_first_token_is_told_once_and_kept_as_a_hash(front: Front) -> None:
    assert front.token.startswith("hmsadm1.")
    assert len(front.token) > 40
    assert await front.admins.load() is None
    again = AdminTokens(front.store, front.clock)
    assert await again.load() is None
    assert again.verify(front.token)
    kept = [(entry.key, entry.value) for entry in await front.store.list("")]
    assert [key.startswith(ADMIN_PREFIX) for key, _ in kept] == [True]
    assert front.token not in repr(kept)
    assert front.token.removeprefix("hmsadm1.") not in repr((kept, front.admins))


async def test_one_that_was_never_shown_is_replaced_at_the_next_start(front: Front) -> None:
    lost = await front.admins.reset()
    again = AdminTokens(front.store, front.clock)
    fresh = await again.load()
    assert fresh is not None
    assert again.verify(fresh)
    assert not again.verify(lost)
    await again.mark_shown()
    assert await again.load() is None


@pytest.mark.parametrize("about", [b'{"created": "2026-01-01T00:00:00Z"}', b"", b"[]"])
async def test_one_of_an_older_version_counts_as_shown(front: Front, about: bytes) -> None:
    (entry,) = await front.store.list(ADMIN_PREFIX)
    await front.store.put(entry.key, about)
    assert await front.admins.load() is None
    assert front.admins.verify(front.token)


async def test_a_reset_voids_the_old_token_in_one_step(front: Front) -> None:
    before = front.store.revision
    fresh = await front.admins.reset()
    assert front.store.revision == before + 1
    await front.admins.mark_shown()
    assert fresh != front.token
    for admins in (front.admins, AdminTokens(front.store, front.clock)):
        if admins is not front.admins:
            assert await admins.load() is None
        assert admins.verify(fresh)
        assert not admins.verify(front.token)


@pytest.mark.parametrize("token", ["", "hmsadm1.", "hmsadm1." + "x" * 43, "\udcff", "ü" * 50])
async def test_nothing_else_is_an_admin_token(front: Front, token: str) -> None:
    assert not front.admins.verify(token)
    assert not front.admins.verify(front.token[:-1])
    assert not front.admins.verify(front.token + "x")


# -- who calls -------------------------------------------------------------------------------------


async def test_nothing_shown_is_anyone(front: Front) -> None:
    assert front.identify() == Caller(Kind.ANYONE, "192.0.2.7")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_admin_token_makes_an_admin(front: Front, scheme: str) -> None:
    caller = front.identify(f"{scheme} {front.token}")
    assert caller == Caller(Kind.ADMIN, "admin")


async def test_an_svid_makes_a_sidecar(front: Front) -> None:
    caller = front.identify(peer=front.peer())
    assert caller == Caller(Kind.SIDECAR, "spiffe://mpsa.mil/svc/claims-svc", spiffe())
    assert caller.service == "claims-svc"


async def test_a_join_token_is_taken_as_it_is_and_not_shown(front: Front) -> None:
    caller = front.identify(f"Bearer {JOIN}")
    assert (caller.kind, caller.token, caller.peer) == (Kind.TOKEN, JOIN, None)
    assert JOIN not in repr(caller)
    assert JOIN not in caller.name


async def test_a_join_token_may_come_with_an_svid(front: Front) -> None:
    caller = front.identify(f"Bearer {JOIN}", front.peer())
    assert (caller.kind, caller.service) == (Kind.TOKEN, "claims-svc")


async def test_a_token_counts_more_than_an_svid(front: Front) -> None:
    assert front.identify(f"Bearer {front.token}", front.peer()).kind is Kind.ADMIN
    with pytest.raises(AuthError):
        front.identify("Bearer wrong", front.peer())


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YWRtaW46YWRtaW4=",
        "Bearer wrong",
        "hmsadm1.x",
        f"Bearer {'x' * 600}",
        "Token x",
    ],
)
async def test_a_bad_authorization_is_refused_without_being_quoted(
    front: Front, authorization: str
) -> None:
    with pytest.raises(AuthError) as caught:
        front.identify(authorization)
    assert caught.value.status == 401
    assert "wrong" not in str(caught.value)
    assert "YWRt" not in str(caught.value)


async def test_an_svid_is_held_against_the_clock_at_each_request(front: Front) -> None:
    peer = front.peer(end=100)
    assert front.identify(peer=peer).kind is Kind.SIDECAR
    front.clock.tick(101)
    with pytest.raises(AuthError, match="expired at .*join again") as caught:
        front.identify(peer=peer)
    assert caught.value.status == 401
    with pytest.raises(AuthError, match="not valid before .*compare the clocks"):
        front.identify(peer=front.peer(begin=120))


async def test_the_control_planes_own_svid_is_no_sidecars(front: Front) -> None:
    with pytest.raises(AuthError, match="is not a service of the mesh") as caught:
        front.identify(peer=front.peer("/hms/control"))
    assert caught.value.status == 403


async def test_a_certificate_that_does_not_count_is_not_nothing(front: Front) -> None:
    with pytest.raises(AuthError, match="no URI"):
        front.identify(peer=Peer(problem="no URI"))


# -- the table -------------------------------------------------------------------------------------

CALLERS = {
    Kind.ANYONE: Caller(Kind.ANYONE, "192.0.2.7"),
    Kind.ADMIN: Caller(Kind.ADMIN, "admin"),
    Kind.TOKEN: Caller(Kind.TOKEN, "a join token", token=JOIN),
    Kind.SIDECAR: Caller(Kind.SIDECAR, str(spiffe()), spiffe()),
}


@pytest.mark.parametrize(("operation", "kind"), [*itertools.product(PERMISSIONS, Kind)])
def test_the_table_decides_by_kind(operation: str, kind: Kind) -> None:
    if kind in PERMISSIONS[operation].kinds:
        authorize(operation, CALLERS[kind])
        return
    with pytest.raises(AuthError) as caught:
        authorize(operation, CALLERS[kind])
    assert caught.value.status == (401 if kind is Kind.ANYONE else 403)
    assert operation in str(caught.value)
    assert JOIN not in str(caught.value)


def test_only_what_is_public_by_nature_is_open_to_anyone() -> None:
    public = {name for name, allowed in PERMISSIONS.items() if Kind.ANYONE in allowed.kinds}
    assert public == {
        "get_bundle",
        "get_documentation",
        "get_health",
        "get_metrics",
        "get_openapi",
        "get_readiness",
    }


def test_a_join_token_is_good_for_an_svid_and_nothing_else() -> None:
    good = [
        name
        for name, allowed in PERMISSIONS.items()
        if Kind.TOKEN in allowed.kinds and Kind.ANYONE not in allowed.kinds
    ]
    assert good == ["issue_svid"]


def test_a_sidecar_may_change_only_what_is_its_own() -> None:
    for name, allowed in PERMISSIONS.items():
        if Kind.SIDECAR in allowed.kinds and Kind.ANYONE not in allowed.kinds:
            assert allowed.own_service or name == "list_services"


def test_an_operation_that_is_not_in_the_table_is_for_nobody() -> None:
    with pytest.raises(KeyError):
        authorize("drop_everything", CALLERS[Kind.ADMIN])


@pytest.mark.parametrize("service", ["auth-svc", "claims-svc2", "CLAIMS-SVC", "", "claims-svc/"])
def test_a_sidecar_acts_for_its_own_service_only(service: str) -> None:
    authorize_service("get_snapshot", CALLERS[Kind.SIDECAR], "claims-svc")
    with pytest.raises(
        AuthError, match="is claims-svc, and may not use get_snapshot for"
    ) as caught:
        authorize_service("get_snapshot", CALLERS[Kind.SIDECAR], service)
    assert caught.value.status == 403


def test_the_admin_acts_for_any_service() -> None:
    authorize_service("get_snapshot", CALLERS[Kind.ADMIN], "auth-svc")
