from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.identity.spiffe_id import (
    MAX_SPIFFE_ID_BYTES,
    SpiffeId,
    SpiffeIdError,
    validate_trust_domain,
)

domains = st.text(string.ascii_lowercase + string.digits + "._-", min_size=1, max_size=255)
segments = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=40).filter(
    lambda segment: segment not in {".", ".."}
)
paths = st.lists(segments, max_size=6).map(lambda parts: "".join(f"/{part}" for part in parts))


@given(domains, paths)
def test_text_and_id_are_one(domain: str, path: str) -> None:
    spiffe_id = SpiffeId(domain, path)
    assert str(spiffe_id) == f"spiffe://{domain}{path}"
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id
    assert hash(SpiffeId.parse(str(spiffe_id))) == hash(spiffe_id)


@given(st.text(max_size=60).map(lambda text: "spiffe://" + text) | st.text(max_size=60))
def test_what_parses_is_canonical(text: str) -> None:
    try:
        spiffe_id = SpiffeId.parse(text)
    except SpiffeIdError:
        return
    assert str(spiffe_id) == text


@given(domains, segments)
def test_service_round_trip(domain: str, service: str) -> None:
    spiffe_id = SpiffeId.for_service(domain, service)
    assert spiffe_id.service == service
    assert spiffe_id.path == f"/svc/{service}"


@given(segments, st.sampled_from("/%:@?# \n\t\0\\é"), st.integers(0, 40))
def test_foreign_characters_are_no_service(segment: str, foreign: str, at: int) -> None:
    with pytest.raises(SpiffeIdError):
        SpiffeId.for_service("mpsa.mil", segment[:at] + foreign + segment[at:])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must begin with"),
        ("SPIFFE://mpsa.mil/a", "must begin with"),
        ("https://mpsa.mil/a", "must begin with"),
        ("spiffe:/mpsa.mil/a", "must begin with"),
        ("spiffe://", "empty"),
        ("spiffe:///a", "empty"),
        ("spiffe://MPSA.mil/a", "outside a-z"),
        ("spiffe://mpsa.mil:443/a", "outside a-z"),
        ("spiffe://user@mpsa.mil/a", "outside a-z"),
        ("spiffe://mpsä.mil/a", "outside a-z"),
        ("spiffe://mpsa.mil/", "empty segment or a trailing slash"),
        ("spiffe://mpsa.mil/a/", "trailing slash"),
        ("spiffe://mpsa.mil//a", "empty segment"),
        ("spiffe://mpsa.mil/./a", "segment '.'"),
        ("spiffe://mpsa.mil/a/..", "segment '..'"),
        ("spiffe://mpsa.mil/a%2Fb", "segment 'a%2Fb'"),
        ("spiffe://mpsa.mil/a?b=c", "segment"),
        ("spiffe://mpsa.mil/a#b", "segment"),
        ("spiffe://mpsa.mil/a\n", "segment"),
        ("spiffe://mpsa.mil?x", "outside a-z"),
        (f"spiffe://{'a' * 256}/b", "255"),
        (f"spiffe://mpsa.mil/{'a' * 2048}", "2048"),
    ],
)
def test_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(SpiffeIdError, match=reason.replace(".", r"\.")):
        SpiffeId.parse(text)


def test_the_longest_id() -> None:
    prefix = "spiffe://mpsa.mil/"
    longest = prefix + "a" * (MAX_SPIFFE_ID_BYTES - len(prefix))
    assert str(SpiffeId.parse(longest)) == longest
    with pytest.raises(SpiffeIdError):
        SpiffeId("mpsa.mil", "/" + "a" * MAX_SPIFFE_ID_BYTES)


@pytest.mark.parametrize("path", ["", "/svc", "/ns/default/sa/a", "/svc/a/b", "/SVC/a"])
def test_other_paths_name_no_service(path: str) -> None:
    assert SpiffeId("mpsa.mil", path).service is None


def test_a_path_must_begin_with_a_slash() -> None:
    with pytest.raises(SpiffeIdError, match="must begin with '/'"):
        SpiffeId("mpsa.mil", "svc/a")


@given(domains)
def test_trust_domain(domain: str) -> None:
    assert validate_trust_domain(domain) == domain


def test_it_is_frozen_and_ordered() -> None:
    one, two = SpiffeId("a"), SpiffeId("b")
    assert sorted([two, one]) == [one, two]
    with pytest.raises(AttributeError):
        one.trust_domain = "c"  # type: ignore[misc]
