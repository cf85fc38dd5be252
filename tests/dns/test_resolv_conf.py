from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.dns.resolv_conf import LOOKED_AT_EVERY, SystemResolvers, parse
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


def test_what_the_system_would_ask() -> None:
    text = """\
    # nameserver 192.0.2.9
    search example.org
    nameserver 192.0.2.1
    nameserver
    nameserver dns.example
    nameserver 2001:db8::1 # the other
    nameserver fe80::1%eth0
    nameserver 192.0.2.4
    """
    assert parse(text) == (("192.0.2.1", 53), ("2001:db8::1", 53), ("fe80::1%eth0", 53))


async def test_a_change_is_seen_but_the_file_is_not_read_for_every_query(tmp_path: Path) -> None:
    clock, file = FakeClock(), tmp_path / "resolv.conf"
    resolvers = SystemResolvers(clock, file)
    assert resolvers() == ()
    file.write_text("nameserver 192.0.2.1\n")
    assert resolvers() == ()
    await clock.advance(LOOKED_AT_EVERY)
    assert resolvers() == (("192.0.2.1", 53),)
    file.unlink()
    assert resolvers() == (("192.0.2.1", 53),)
    await clock.advance(LOOKED_AT_EVERY)
    assert resolvers() == ()
