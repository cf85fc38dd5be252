from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from hms_addons.identity.file_secret import POLL_INTERVAL, SecretFiles
from hms_addons.identity.identity_holder import IdentityHolder, SecretError, SecretMaterial
from hms_addons.identity.secret_store import SecretStore
from hms_addons.tasks import TaskSet
from tests.fakes import pki
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Kept:
    """A store, and what it told of."""

    def __init__(self, folder: Path, provided: IdentityHolder | None = None) -> None:
        self.folder = folder
        self.clock = FakeClock(wall=time.time())
        self.tasks = TaskSet("test")
        self.changes: list[str] = []
        self.store = SecretStore(self.clock, self.tasks, self.changes.append, provided)

    def files(self, service: str, lifetime: float | None = None) -> SecretFiles:
        """The three files of a service, in a folder of its own; written anew each time."""
        folder = self.folder / service
        folder.mkdir(exist_ok=True)
        svid = pki.svid(service, lifetime=lifetime)
        paths = pki.write_secret(folder, svid, name=service)
        return SecretFiles(paths.certificate, paths.key, paths.bundle)

    def use(self, trust_domain: str | None = None, **wanted: SecretFiles) -> list[str]:
        return self.store.commit(self.store.stage(wanted, trust_domain))

    def generation(self, name: str) -> int:
        identity = self.store.current(name)
        assert identity is not None
        return identity.generation


@pytest_asyncio.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    made = Kept(tmp_path)
    yield made
    await made.tasks.close()
    assert made.clock.pending == 0


async def test_commit_makes_it_so(kept: Kept) -> None:
    assert kept.store.current("mine") is None
    assert kept.use(mine=kept.files("auth-svc")) == ["mine"]
    identity = kept.store.current("mine")
    assert identity is not None
    assert str(identity.spiffe_id).endswith("/svc/auth-svc")
    assert kept.store.problem("mine") is None
    assert len(kept.tasks) == 1
    assert "mine" in repr(kept.store)


async def test_what_is_staged_and_forgotten_leaves_nothing(kept: Kept) -> None:
    kept.store.stage({"mine": kept.files("auth-svc")}, None)
    assert kept.store.holders == {}
    assert kept.store.current("mine") is None
    assert len(kept.tasks) == 0


async def test_an_unchanged_secret_keeps_its_generation_and_its_watcher(kept: Kept) -> None:
    files = kept.files("auth-svc")
    kept.use(mine=files)
    kept.files("auth-svc", lifetime=3600)
    await kept.clock.advance(POLL_INTERVAL)
    assert kept.generation("mine") == 2
    holder = kept.store.holders["mine"]
    assert kept.use(mine=files) == []
    assert kept.store.holders["mine"] is holder
    assert kept.generation("mine") == 2
    assert len(kept.tasks) == 1


async def test_other_files_are_another_secret(kept: Kept) -> None:
    kept.use(mine=kept.files("auth-svc"), other=kept.files("claims-svc"))
    assert kept.use(mine=kept.files("payments-svc"), other=kept.files("claims-svc")) == ["mine"]
    identity = kept.store.current("mine")
    assert identity is not None
    assert str(identity.spiffe_id).endswith("/svc/payments-svc")
    await kept.clock.advance(0)
    assert len(kept.tasks) == 2


async def test_another_trust_domain_loads_it_anew(kept: Kept) -> None:
    files = kept.files("auth-svc")
    kept.use(mine=files)
    assert kept.use(trust_domain=pki.TRUST_DOMAIN, mine=files) == ["mine"]
    with pytest.raises(SecretError, match="other.example"):
        kept.store.stage({"mine": files}, "other.example")


async def test_a_bad_file_changes_nothing(kept: Kept) -> None:
    good = kept.files("auth-svc")
    kept.use(mine=good)
    before = kept.store.current("mine")
    missing = SecretFiles(kept.folder / "none.pem", good.key, good.bundle)
    with pytest.raises(SecretError, match="none.pem"):
        kept.store.stage({"new": kept.files("claims-svc"), "mine": missing}, None)
    assert kept.store.current("mine") is before
    assert list(kept.store.holders) == ["mine"]
    kept.files("auth-svc", lifetime=3600)
    await kept.clock.advance(POLL_INTERVAL)
    assert kept.changes == ["mine"], "it is followed no more"


async def test_a_removed_secret_is_followed_no_more(kept: Kept) -> None:
    kept.use(mine=kept.files("auth-svc"), other=kept.files("claims-svc"))
    kept.use(other=kept.files("claims-svc"))
    assert kept.store.current("mine") is None
    await kept.clock.advance(POLL_INTERVAL)
    assert len(kept.tasks) == 1
    kept.files("auth-svc", lifetime=3600)
    await kept.clock.advance(POLL_INTERVAL)
    assert "mine" not in kept.changes


async def test_on_change_is_called_with_the_name_for_swaps_alone(kept: Kept) -> None:
    kept.use(mine=kept.files("auth-svc"), other=kept.files("claims-svc"))
    assert kept.changes == []
    kept.files("claims-svc", lifetime=3600)
    await kept.clock.advance(POLL_INTERVAL)
    assert kept.changes == ["other"]
    assert kept.generation("other") == 2


async def test_a_bad_renewal_is_a_problem_and_the_old_one_serves(kept: Kept) -> None:
    files = kept.files("auth-svc")
    kept.use(mine=files)
    files.key.write_text("no key")
    await kept.clock.advance(POLL_INTERVAL)
    assert "auth-svc.key" in str(kept.store.problem("mine"))
    assert kept.generation("mine") == 1
    assert kept.changes == []
    assert kept.store.problem("unknown") is None


# -- what the control plane provides ---------------------------------------------------------------


class Provided(Kept):
    """A store with a control plane behind it."""

    def __init__(self, folder: Path) -> None:
        self.holder = IdentityHolder("control plane")
        super().__init__(folder, self.holder)

    def swap(self, lifetime: float | None = None) -> None:
        """The control plane's SVID arrives, or is renewed."""
        svid = pki.svid("claims-svc", lifetime=lifetime)
        self.holder.replace(SecretMaterial(svid, pki.bundle()), self.clock.wall())

    def ask(self, *names: str, **wanted: SecretFiles) -> list[str]:
        return self.store.commit(self.store.stage(wanted, None, names))


@pytest_asyncio.fixture
async def provided(tmp_path: Path) -> AsyncIterator[Provided]:
    made = Provided(tmp_path)
    yield made
    await made.tasks.close()
    assert made.clock.pending == 0


async def test_a_name_without_files_is_the_control_planes(provided: Provided) -> None:
    provided.swap()
    assert provided.ask("mesh_certs", "mine", mine=provided.files("auth-svc")) == [
        "mesh_certs",
        "mine",
    ]
    assert provided.store.current("mesh_certs") is provided.holder.current
    mine = provided.store.current("mine")
    assert mine is not None
    assert mine.spiffe_id.service == "auth-svc"
    assert provided.store.problem("mesh_certs") is None
    assert provided.store.current("unasked") is None
    assert len(provided.tasks) == 1, "only files are polled"


async def test_without_a_control_plane_nobody_provides_it(kept: Kept) -> None:
    assert kept.store.commit(kept.store.stage({}, None, {"mesh_certs"})) == []
    assert kept.store.current("mesh_certs") is None


async def test_every_provided_name_is_told_of_a_renewal_once(provided: Provided) -> None:
    provided.ask("one", "two")
    assert provided.store.current("one") is None
    provided.swap()
    assert provided.changes == ["one", "two"]
    assert provided.ask("one", "two") == []
    provided.swap(lifetime=3600)
    assert provided.changes == ["one", "two", "one", "two"]
    assert provided.generation("one") == 2


async def test_who_is_not_asked_for_any_more_is_not_told(provided: Provided) -> None:
    provided.swap()
    provided.ask("one", "two")
    provided.ask("two")
    provided.swap(lifetime=3600)
    assert provided.changes == ["two"]
    assert provided.store.current("one") is None


async def test_files_take_a_name_over_and_give_it_back(provided: Provided) -> None:
    provided.swap()
    provided.ask("one")
    assert provided.ask("one", one=provided.files("auth-svc")) == ["one"]
    provided.swap(lifetime=3600)
    assert provided.changes == []
    assert provided.ask("one") == ["one"]
    assert provided.store.current("one") is provided.holder.current


async def test_a_renewal_that_fails_and_an_svid_that_has_expired_are_problems(
    provided: Provided,
) -> None:
    provided.swap(lifetime=3600)
    provided.ask("one", "mine", mine=provided.files("auth-svc", lifetime=7200))
    provided.holder.problem = "the control plane is away"
    assert provided.store.problem("one") == "the control plane is away"
    assert provided.store.expired(["one", "mine", "unknown"]) == []
    provided.clock.step(3700)
    assert provided.store.expired(["one", "mine"]) == ["one"]
    assert provided.store.problem("mine") is None
    (_, shown) = sorted(provided.store.describe(), key=lambda row: str(row["secret"]))
    assert shown["secret"] == "one"
    assert shown["problem"] == f"expired at {shown['not_after']}; the control plane is away"
    assert shown["remaining_s"] <= 0
    provided.holder.problem = None
    assert provided.store.problem("one") == f"expired at {shown['not_after']}"
    provided.clock.step(3600)
    assert provided.store.expired(["one", "mine"]) == ["mine", "one"]


async def test_a_provided_svid_of_another_trust_domain_is_refused(provided: Provided) -> None:
    provided.swap()
    assert provided.store.stage({}, pki.TRUST_DOMAIN, {"one"})
    with pytest.raises(SecretError, match="not of the trust domain 'other.example'"):
        provided.store.stage({}, "other.example", {"one"})
