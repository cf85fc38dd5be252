from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.control.ca.authority import CaError
from hms_addons.control.ca.authority_state import (
    AuthorityState,
    Phase,
    RotationError,
    _checksum,
    pin_of,
)
from hms_addons.control.ca.template import DEFAULT_SVID_LIFETIME, INTERMEDIATE_LIFETIME
from hms_addons.identity.spiffe_id import SpiffeId, SpiffeIdError
from hms_addons.identity.trust_bundle import fingerprint
from tests.fakes.clock import FakeClock

DAY = 86400.0
CLOCK = FakeClock()
NEW = AuthorityState.create("mpsa.mil", DAY, CLOCK)
ANNOUNCED = NEW.announced(DAY, CLOCK)
SIGNING = ANNOUNCED.advanced(CLOCK.wall() + 100)
RETIRED = SIGNING.advanced(CLOCK.wall() + 2 * DAY)
AUTH = SpiffeId.for_service("mpsa.mil", "auth-svc")


def same(one: AuthorityState, other: AuthorityState) -> bool:
    """Keys have no equality of their own; their PEM, which is in the document, has."""
    return one.to_bytes() == other.to_bytes()


def signed_by(state: AuthorityState, clock: FakeClock = CLOCK) -> int:
    """Which root of the bundle a fresh SVID is below."""
    svid = state.authority(state.signer, clock).issue(AUTH)
    for index, root in enumerate(state.bundle().roots):
        try:
            svid.certificates[-1].verify_directly_issued_by(root)
        except Exception:  # noqa: BLE001 - whatever it is, it is another root
            continue
        return index
    raise AssertionError


# -- the steps of a rotation -----------------------------------------------------------------------


def test_a_new_ca_signs_below_its_only_root() -> None:
    assert (NEW.phase, NEW.sequence, NEW.coming, NEW.until) == (Phase.STEADY, 1, None, None)
    assert NEW.bundle().roots == (NEW.active.root,)
    assert NEW.bundle(60).refresh_hint == 60
    assert NEW.bundle().sequence == 1
    assert signed_by(NEW) == 0
    assert pin_of(NEW.active.root) == "sha256:" + fingerprint(NEW.active.root)


def test_an_announced_root_is_trusted_and_signs_nothing() -> None:
    assert ANNOUNCED.coming is not None
    assert ANNOUNCED.bundle().roots == (NEW.active.root, ANNOUNCED.coming.root)
    assert (ANNOUNCED.phase, ANNOUNCED.sequence) == (Phase.ANNOUNCED, 2)
    assert signed_by(ANNOUNCED) == 0
    assert ANNOUNCED.coming.longest == NEW.active.longest


def test_then_it_signs_and_the_old_one_is_still_trusted() -> None:
    assert (SIGNING.phase, SIGNING.sequence) == (Phase.SIGNING, 2)
    assert SIGNING.bundle() == ANNOUNCED.bundle()
    assert signed_by(SIGNING) == 1
    assert SIGNING.until is not None
    assert SIGNING.until > SIGNING.since + DAY, "an SVID signed a moment before still lives"


def test_then_the_old_one_is_gone_with_its_keys() -> None:
    assert ANNOUNCED.coming is not None
    assert (RETIRED.phase, RETIRED.sequence, RETIRED.coming) == (Phase.STEADY, 3, None)
    assert RETIRED.bundle().roots == (ANNOUNCED.coming.root,)
    old = json.loads(NEW.to_bytes())["active"]
    assert old["root_key"] not in json.loads(RETIRED.to_bytes())["active"].values()
    assert signed_by(RETIRED) == 0


def test_only_one_rotation_at_a_time() -> None:
    for state in (ANNOUNCED, SIGNING):
        with pytest.raises(RotationError, match=f"phase '{state.phase}'"):
            state.announced(DAY, CLOCK)
    with pytest.raises(RotationError, match="no rotation"):
        NEW.advanced(0)
    with pytest.raises(RotationError, match="overlap"):
        NEW.announced(float("nan"), CLOCK)


@pytest.mark.parametrize(
    ("after", "reported", "over"),
    [
        (0, [], False),
        (29, [2], False),  # one that is just starting may not have reported
        (30, [], True),
        (30, [2, 2], True),
        (30, [2, 3], True),
        (30, [2, 1], False),
        (30, [2, None], False),
        (DAY - 1, [1], False),
        (DAY, [1], True),  # its SVID has expired
        (DAY, [None], True),
    ],
)
def test_an_announcement_is_over_when_all_have_it_or_time_is_up(
    after: float, reported: list[int | None], over: bool
) -> None:
    assert ANNOUNCED.is_over(ANNOUNCED.since + after, reported, 30) is over


def test_an_old_root_is_trusted_until_the_last_svid_below_it_has_expired() -> None:
    last = ANNOUNCED.authority(ANNOUNCED.signer, CLOCK).issue(AUTH, DAY)
    state = ANNOUNCED.advanced(CLOCK.wall())
    assert not state.is_over(last.not_after, [2], 30)
    assert state.until is not None
    assert state.is_over(state.until, [1], 30)


def test_steady_is_never_over() -> None:
    assert not NEW.is_over(1e12, [9], 0)


def test_the_longest_life_only_grows() -> None:
    assert NEW.with_longest(2 * DAY).active.longest == 2 * DAY
    assert NEW.with_longest(1).active.longest == DAY
    both = SIGNING.with_longest(2 * DAY)
    assert both.coming is not None
    assert (both.active.longest, both.coming.longest) == (2 * DAY, 2 * DAY)


# -- intermediates ---------------------------------------------------------------------------------


def test_intermediates_are_renewed_in_time_below_the_same_roots() -> None:
    clock = FakeClock()
    clock.step(INTERMEDIATE_LIFETIME * 0.6)
    assert SIGNING.with_renewed_intermediates(clock) is SIGNING
    clock.step(INTERMEDIATE_LIFETIME * 0.1)
    renewed = SIGNING.with_renewed_intermediates(clock)
    assert renewed.bundle() == SIGNING.bundle()
    assert renewed.active.intermediate != SIGNING.active.intermediate
    assert renewed.coming is not None
    assert SIGNING.coming is not None
    assert renewed.coming.intermediate != SIGNING.coming.intermediate
    assert renewed.with_renewed_intermediates(clock) is renewed
    assert signed_by(renewed, clock) == 1
    reread = AuthorityState.from_bytes(renewed.to_bytes(), "mpsa.mil", clock.wall())
    assert same(reread, renewed)


def test_long_lived_svids_are_not_cut_short() -> None:
    clock = FakeClock()
    state = NEW.with_longest(90 * DAY)
    clock.step(INTERMEDIATE_LIFETIME - 2 * 90 * DAY)
    assert state.with_renewed_intermediates(clock) is not state


def test_an_intermediate_that_ends_with_its_root_is_left_alone() -> None:
    clock = FakeClock()
    clock.step(10 * 365 * DAY - 100 * DAY)
    late = NEW.with_renewed_intermediates(clock)
    assert late is not NEW
    assert late.active.intermediate.not_valid_after_utc == late.active.root.not_valid_after_utc
    clock.step(90 * DAY)
    assert late.with_renewed_intermediates(clock) is late


# -- the document ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [NEW, ANNOUNCED, SIGNING, RETIRED], ids=lambda s: str(s.phase))
def test_the_document_holds_everything(state: AuthorityState) -> None:
    reread = AuthorityState.from_bytes(state.to_bytes(), "mpsa.mil", CLOCK.wall())
    assert same(reread, state)
    assert reread.bundle() == state.bundle()
    assert signed_by(reread) == signed_by(state)


def changed(state: AuthorityState, **changes: Any) -> bytes:
    """A document with a right checksum and something wrong in it."""
    content = {**json.loads(state.to_bytes()), **changes}
    del content["checksum"]
    return json.dumps({**content, "checksum": _checksum(content)}).encode()


def part(state: AuthorityState, **changes: Any) -> dict[str, Any]:
    return {**json.loads(state.to_bytes())["active"], **changes}


OTHER = AuthorityState.create("mpsa.mil", DAY, CLOCK)
GONE = json.loads(NEW.to_bytes())["active"]
FOREIGN = json.loads(AuthorityState.create("other.example", DAY, CLOCK).to_bytes())["active"]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b"{}", "format None, this version knows 1"),
        (b'{"format": 2}', "format 2"),
        (b'{"format": 1}', "does not fit its checksum"),
        (NEW.to_bytes()[:-100], "not JSON"),
        (NEW.to_bytes().replace(b'"sequence": 1', b'"sequence": 2'), "does not fit its checksum"),
        (changed(NEW, trust_domain="other.example"), "of the trust domain 'other.example', not"),
        (changed(NEW, phase="signing"), "phase 'signing' does not fit"),
        (changed(ANNOUNCED, phase="steady"), "phase 'steady' does not fit"),
        (changed(NEW, phase="odd"), "odd"),
        (changed(NEW, since="soon"), "could not convert"),
        (changed(NEW, active=None), "cannot be used"),
        (changed(NEW, active=part(NEW, root_key=part(OTHER)["root_key"])), "root's key is not"),
        (changed(NEW, active=part(NEW, key=part(OTHER)["key"])), "intermediate's key is not"),
        (changed(NEW, active=part(NEW, key="no key")), "not a PEM private key"),
        (
            changed(NEW, active={**GONE, **{k: part(OTHER)[k] for k in ("intermediate", "key")}}),
            "no root of the bundle",
        ),
    ],
)
def test_a_damaged_or_foreign_one_is_an_error_that_names_the_remedy(
    document: bytes, reason: str
) -> None:
    with pytest.raises(CaError, match="--data") as caught:
        AuthorityState.from_bytes(document, "mpsa.mil", CLOCK.wall())
    assert reason in str(caught.value)
    assert "PRIVATE" not in str(caught.value).replace("PRIVATE KEY or EC PRIVATE KEY block", "")


def test_an_expired_root_is_an_error() -> None:
    with pytest.raises(CaError, match="expired at"):
        AuthorityState.from_bytes(NEW.to_bytes(), "mpsa.mil", CLOCK.wall() + 11 * 365 * DAY)


def test_an_expired_intermediate_is_none() -> None:
    late = CLOCK.wall() + 2 * INTERMEDIATE_LIFETIME
    assert same(AuthorityState.from_bytes(NEW.to_bytes(), "mpsa.mil", late), NEW)


def test_a_bad_trust_domain() -> None:
    with pytest.raises(SpiffeIdError):
        AuthorityState.create("MPSA", DEFAULT_SVID_LIFETIME, CLOCK)


@given(st.integers(0, len(NEW.to_bytes()) - 1), st.integers(0, 255))
def test_one_wrong_byte_is_found(position: int, byte: int) -> None:
    document = bytearray(NEW.to_bytes())
    if document[position] == byte:
        return
    document[position] = byte
    try:
        state = AuthorityState.from_bytes(bytes(document), "mpsa.mil", CLOCK.wall())
    except CaError:
        return
    assert same(state, NEW)


@given(
    st.binary(max_size=100)
    | st.dictionaries(st.text(), st.integers()).map(json.dumps).map(str.encode)
)
def test_whatever_is_no_document_is_one_kind_of_error(document: bytes) -> None:
    with pytest.raises(CaError):
        AuthorityState.from_bytes(document, "mpsa.mil", 0.0)


def test_keys_are_in_no_repr() -> None:
    shown = repr(ANNOUNCED) + repr(replace(ANNOUNCED, phase=Phase.SIGNING))
    assert "key" not in shown.lower()
