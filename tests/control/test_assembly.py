from __future__ import annotations

import asyncio
import stat
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.control.assembly import STORE_FILE, Settings, SettingsError, assembled
from hms_addons.control.ca.authority import CaError
from hms_addons.control.store.protocol import StoreClosedError, StoreError
from tests.fakes.clock import FakeClock
from tests.fakes.plane import running_plane

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_data_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    async with running_plane(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / STORE_FILE).stat().st_mode) == 0o600


async def test_what_it_holds_is_found_again(tmp_path: Path) -> None:
    async with running_plane(tmp_path) as first:
        pin, token = first.plane.authority.pin, first.token
    async with assembled(Settings(tmp_path), FakeClock(), asyncio.Event()) as plane:
        assert plane.authority.pin == pin
        assert await plane.admins.load() is None
        assert plane.admins.verify(token)


async def test_everything_is_closed_at_the_end(tmp_path: Path) -> None:
    async with running_plane(tmp_path) as made:
        store = made.plane.store
    with pytest.raises(StoreClosedError):
        await store.get("ca/state")


async def test_another_trust_domain_is_refused_and_the_folder_is_free_again(
    tmp_path: Path,
) -> None:
    async with running_plane(tmp_path):
        pass
    with pytest.raises(CaError, match="is of the trust domain 'mpsa.mil', not 'other.example'"):
        async with running_plane(tmp_path, trust_domain="other.example"):
            pass
    async with running_plane(tmp_path):
        pass


@pytest.mark.parametrize(
    "wrong",
    [{"svid_lifetime": 0.5}, {"trust_domain": "Bad_Upper"}, {"names": ["bad host!"]}],
)
async def test_settings_that_cannot_be_leave_nothing_behind(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError):
        async with running_plane(tmp_path / "data", **wrong):
            pass
    assert not (tmp_path / "data").exists()


async def test_a_folder_that_another_one_uses_is_refused(tmp_path: Path) -> None:
    async with running_plane(tmp_path) as first:
        with pytest.raises(StoreError, match=STORE_FILE):
            async with running_plane(tmp_path):
                pass
        assert (await first.ask("GET", "/readyz")).status_code == 200


def test_its_certificate_is_for_the_names_it_is_reached_by(tmp_path: Path) -> None:
    local = ("localhost", "127.0.0.1", "::1")
    assert Settings(tmp_path).all_names == local
    assert Settings(tmp_path, host="10.0.0.7").all_names == (*local, "10.0.0.7")
    everywhere = Settings(tmp_path, host="0.0.0.0", names=["control.mpsa.mil", "localhost"])
    assert everywhere.listens_everywhere
    assert everywhere.all_names == (*local, "control.mpsa.mil")
