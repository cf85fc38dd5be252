"""What a request may bring across a hop, and what the hop adds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.snapshot import HeaderNames
from hms_addons.engine.framing import index_fields
from hms_addons.engine.hygiene import Hygiene, own_fields

if TYPE_CHECKING:
    from hms_addons.http_message import Fields

OWNED = HeaderNames().all
HYGIENE = Hygiene(OWNED)
OWN = own_fields("10.0.0.7", "http")
PARENT = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
PEER = "spiffe://mpsa.mil/svc/claims-svc"


def clean(*fields: tuple[bytes, bytes], peer: str | None = None) -> dict[bytes, bytes]:
    return index_fields(clean_fields(fields, peer))


def clean_fields(fields: Fields, peer: str | None = None) -> Fields:
    return HYGIENE.clean(fields, index_fields(fields), OWN, b"id-1", peer=peer)


def test_what_every_request_gets() -> None:
    found = clean((b"Host", b"auth-svc.svc"))
    assert found[b"host"] == b"auth-svc.svc"
    assert found[b"via"] == b"1.1 hms"
    assert found[b"x-forwarded-for"] == b"10.0.0.7"
    assert found[b"x-forwarded-proto"] == b"http"
    assert found[b"x-forwarded-host"] == b"auth-svc.svc"
    assert found[b"x-request-id"] == b"id-1"
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", found[b"traceparent"])


def test_what_the_caller_sent_of_those_is_kept() -> None:
    found = clean((b"Host", b"a"), (b"X-Request-ID", b"mine"), (b"traceparent", PARENT))
    assert found[b"x-request-id"] == b"mine"
    assert found[b"traceparent"] == PARENT


@pytest.mark.parametrize(
    "fields",
    [
        ((b"TraceParent", b"00-bad"),),
        ((b"traceparent", PARENT), (b"Traceparent", PARENT)),
        (),
    ],
)
def test_a_trace_context_that_is_none_is_made_anew(fields: Fields) -> None:
    given = ((b"Host", b"a"), *fields, (b"TraceState", b"congo=1"), (b"X-A", b"b"))
    head = index_fields(given)
    found = index_fields(HYGIENE.clean(given, head, OWN, b"id-1", peer=PEER))
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-00", found[b"traceparent"])
    assert PARENT[3:35] not in found[b"traceparent"]
    assert b"tracestate" not in found
    assert found[b"x-a"] == b"b"
    # Nor does any plugin go by it.
    assert not {b"traceparent", b"tracestate"} & head.keys()


def test_a_good_trace_context_goes_on_with_its_state() -> None:
    found = clean((b"Host", b"a"), (b"traceparent", PARENT), (b"tracestate", b"congo=1"))
    assert (found[b"traceparent"], found[b"tracestate"]) == (PARENT, b"congo=1")


@pytest.mark.parametrize("peer", [None, PEER])
@pytest.mark.parametrize("name", OWNED)
def test_nobody_may_supply_what_the_mesh_owns(name: bytes, peer: str | None) -> None:
    for spelling in (name, name.upper(), name.replace(b"-", b"_"), name.replace(b"-", b"_", 1)):
        assert spelling.lower() not in clean((b"Host", b"a"), (spelling, b"ADMIN"), peer=peer)


@pytest.mark.parametrize("peer", [None, PEER])
@pytest.mark.parametrize("name", [*OWNED, b"X-Forwarded-Client-Cert"])
def test_nobody_may_have_it_decide_a_route(name: bytes, peer: str | None) -> None:
    """Routes match `exchange.head`, so what is not forwarded must not stand there either."""
    for spelling in (name, name.upper(), name.replace(b"-", b"_"), name.replace(b"-", b"_", 1)):
        for more in ((), ((b"Connection", spelling),)):
            fields = ((b"Host", b"a"), (spelling, b"ADMIN"), (b"X-Mine", b"1"), *more)
            head = index_fields(fields)
            HYGIENE.clean(fields, head, OWN, b"id-1", peer=peer)
            assert head[b"x-mine"] == b"1"
            assert spelling.lower() not in head


@given(st.sampled_from(OWNED), st.data())
def test_no_mix_of_dashes_underscores_and_case_gets_through(
    name: bytes, data: st.DataObject
) -> None:
    spelled = bytes(
        data.draw(st.sampled_from(b"-_"))
        if byte in b"-_"
        else data.draw(st.sampled_from(bytes([byte]).lower() + bytes([byte]).upper()))
        for byte in name
    )
    assert all(
        value != b"forged" for _, value in clean_fields(((b"Host", b"a"), (spelled, b"forged")))
    )


@pytest.mark.parametrize(
    "name",
    [
        b"Connection", b"Keep-Alive", b"TE", b"Trailer", b"Transfer-Encoding", b"Upgrade",
        b"Proxy-Connection", b"Proxy-Authorization", b"HTTP2-Settings", b"Content-Length",
        b"Expect", b"X-Forwarded-Client-Cert",
    ],
)  # fmt: skip
@pytest.mark.parametrize("peer", [None, PEER])
def test_hop_by_hop_and_framing_fields_end_here_in_every_spelling(
    name: bytes, peer: str | None
) -> None:
    for spelling in (name, name.upper(), name.replace(b"-", b"_"), name.replace(b"-", b"_", 1)):
        assert spelling.lower() not in clean((b"Host", b"a"), (spelling, b"x"), peer=peer)


def test_other_names_with_underscores_pass() -> None:
    found = clean((b"Host", b"a"), (b"X_Tenant_Id", b"7"), (b"_x", b"8"), (b"__", b"9"))
    assert (found[b"x_tenant_id"], found[b"_x"], found[b"__"]) == (b"7", b"8", b"9")


def test_fields_that_connection_names_end_here() -> None:
    found = clean((b"Host", b"a"), (b"Connection", b"close, X-Hop ,x-other"), (b"X-Hop", b"1"),
                  (b"X-Other", b"2"), (b"X-Stays", b"3"))  # fmt: skip
    assert b"x-hop" not in found
    assert b"x-other" not in found
    assert found[b"x-stays"] == b"3"


def test_connection_cannot_take_away_what_is_authorised() -> None:
    found = clean(
        (b"Host", b"a"), (b"Authorization", b"t"), (b"Connection", b"authorization, host")
    )
    assert found[b"authorization"] == b"t"
    assert found[b"host"] == b"a"


def test_lists_are_continued_and_single_values_believed_from_a_peer_only() -> None:
    fields = (
        (b"Host", b"inner"),
        (b"Via", b"1.1 edge"),
        (b"X-Forwarded-For", b"1.2.3.4"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Host", b"www.example"),
        (b"Forwarded", b"for=1.2.3.4"),
    )
    stranger, friend = clean(*fields), clean(*fields, peer=PEER)
    for found in (stranger, friend):
        assert found[b"via"] == b"1.1 edge, 1.1 hms"
        assert found[b"x-forwarded-for"] == b"1.2.3.4, 10.0.0.7"
        assert found[b"forwarded"] == b"for=1.2.3.4, for=10.0.0.7"
    assert stranger[b"x-forwarded-proto"] == b"http"
    assert stranger[b"x-forwarded-host"] == b"inner"
    assert friend[b"x-forwarded-proto"] == b"https"
    assert friend[b"x-forwarded-host"] == b"www.example"


def test_an_upgrade_is_asked_for_anew() -> None:
    fields = ((b"Host", b"a"), (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
    sent = HYGIENE.clean(fields, index_fields(fields), OWN, b"id", peer=None, upgrade=b"websocket")
    found = index_fields(sent)
    assert found[b"connection"] == b"Upgrade"
    assert found[b"upgrade"] == b"websocket"


def test_trailers_that_matter_do_not_pass() -> None:
    kept = HYGIENE.clean_trailers(
        (
            (b"X-Checksum", b"1"),
            (b"X-Caller-Role", b"ADMIN"),
            (b"x_caller_role", b"ADMIN"),
            (b"Authorization", b"t"),
            (b"Host", b"evil"),
            (b"Content-Length", b"3"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Transfer_Encoding", b"chunked"),
            (b"Content_Length", b"3"),
            (b"Content_Type", b"text/html"),
            (b"Set_Cookie", b"a=b"),
            (b"X_Policy-Version", b"0"),
            (b"X_Forwarded_For", b"6.6.6.6"),
            (b"X_Check_Sum", b"2"),
        )
    )
    assert kept == ((b"X-Checksum", b"1"), (b"X_Check_Sum", b"2"))


def test_other_owned_names() -> None:
    hygiene = Hygiene((b"X-Rolle",))
    fields = ((b"Host", b"a"), (b"X-Rolle", b"CHEF"), (b"X-Caller-Role", b"kept"))
    found = index_fields(hygiene.clean(fields, index_fields(fields), OWN, b"id", peer=None))
    assert b"x-rolle" not in found
    assert found[b"x-caller-role"] == b"kept"


@pytest.mark.parametrize(
    "name",
    [b"X_Forwarded_For", b"X-Forwarded_Proto", b"x_forwarded-host", b"X_Forwarded_Client_Cert"],
)
@pytest.mark.parametrize("peer", [None, PEER])
def test_forwarding_headers_pass_in_no_other_spelling(name: bytes, peer: str | None) -> None:
    assert name.lower() not in clean((b"Host", b"a"), (name, b"6.6.6.6"), peer=peer)


def test_connection_cannot_take_away_what_every_request_has() -> None:
    named = b"x-request-id, traceparent, via, x-forwarded-for"
    found = clean((b"Host", b"a"), (b"X-Request-ID", b"mine"), (b"Connection", named))
    assert found[b"x-request-id"] == b"mine"
    assert {b"traceparent", b"via", b"x-forwarded-for"} <= set(found)
