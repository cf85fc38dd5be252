from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.identity import jwt_verifier
from hms_addons.identity.jwt_claims import JwtError
from hms_addons.identity.jwt_verifier import (
    CACHE_SECONDS,
    JwtKeyError,
    JwtProvider,
    JwtProviderError,
    JwtVerifier,
    VerifiedToken,
    token_from_header,
)
from hms_addons.identity.key_set import KeySet, key_set_of_jwks
from tests.fakes import pki
from tests.fakes.clock import FakeClock
from tests.identity.test_jws import token

RS256 = pki.jwt_key("RS256")
ES256 = pki.jwt_key("ES256")
HS256 = pki.jwt_key("HS256")


class FakeSource:
    """Keys that a test sets by hand."""

    def __init__(self, *keys: pki.JwtKey, problem: str | None = None) -> None:
        self.keys = key_set_of_jwks(pki.jwks(*keys)) if keys else KeySet()
        self.problem = problem
        self._seen = self.keys

    def refresh(self) -> bool:
        changed = self.keys is not self._seen
        self._seen = self.keys
        return changed

    def renewal(self) -> None:
        return None


def provider(*keys: pki.JwtKey, **changes: Any) -> JwtProvider:
    settings: dict[str, Any] = {
        "name": "idp",
        "issuer": pki.ISSUER,
        "audiences": frozenset({pki.AUDIENCE}),
        "algorithms": frozenset(key.algorithm for key in keys) or frozenset({"RS256"}),
        "source": FakeSource(*keys),
    }
    return JwtProvider(**settings | changes)


class Rig:
    def __init__(self, *providers: JwtProvider) -> None:
        self.clock = FakeClock()
        self.made: list[VerifiedToken] = []
        self.verifier = JwtVerifier(providers or (provider(RS256),), self.clock, self._make)

    def _make(self, token: VerifiedToken) -> VerifiedToken:
        self.made.append(token)
        return token

    def claims(self, **changes: Any) -> dict[str, Any]:
        return pki.claims(now=self.clock.wall(), **changes)

    def verify(self, key: pki.JwtKey = RS256, /, **changes: Any) -> VerifiedToken:
        return self.verifier.verify(key.sign(self.claims(**changes)))

    def refused(self, key: pki.JwtKey = RS256, /, **changes: Any) -> JwtError:
        token = key.sign(self.claims(**changes))
        with pytest.raises(JwtError) as caught:
            self.verifier.verify(token)
        assert token not in caught.value.detail
        assert token.rpartition(".")[2] not in caught.value.detail
        return caught.value


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_good_token(rig: Rig) -> None:
    verified = rig.verify()
    assert verified.subject == "sgt.pepper"
    assert verified.roles == ("PROGRAM_MANAGER",)
    assert verified.issuer == pki.ISSUER
    assert verified.provider == "idp"
    assert verified.expires_at == rig.clock.wall() + 3600
    assert verified.claims["aud"] == pki.AUDIENCE
    with pytest.raises(TypeError):
        verified.claims["aud"] = "x"  # type: ignore[index]
    assert "sgt.pepper" in repr(verified)
    assert pki.AUDIENCE not in repr(verified)


# --- times ----------------------------------------------------------------------------------------


def test_a_forged_token_learns_nothing_of_audiences(rig: Rig) -> None:
    error = rig.refused(pki.jwt_key("RS256", "other"), aud="x")
    assert error.code == "invalid_token"
    assert "no key of the issuer" in error.detail


@pytest.mark.parametrize("iss", ["https://evil.example", "", None, 5, ["x"], pki.ISSUER + "/"])
def test_unknown_issuers(rig: Rig, iss: object) -> None:
    assert "issuer" in rig.refused(iss=iss).detail


def test_a_long_issuer_is_not_repeated_whole(rig: Rig) -> None:
    assert len(rig.refused(iss="x" * 5000).detail) < 200


def test_the_provider_is_chosen_by_issuer() -> None:
    rig = Rig(
        provider(RS256, name="a", issuer="https://a"),
        provider(ES256, name="b", issuer="https://b"),
    )
    assert rig.verify(RS256, iss="https://a").provider == "a"
    assert rig.verify(ES256, iss="https://b").provider == "b"
    assert "algorithm is not one of those accepted (RS256)" in (
        rig.refused(ES256, iss="https://a").detail
    )


def test_a_provider_without_issuer_takes_what_no_other_claims() -> None:
    rig = Rig(provider(RS256, name="any", issuer=None), provider(ES256, name="b", issuer="b"))
    assert rig.verify(RS256, iss=None).provider == "any"
    assert rig.verify(RS256, iss="x").provider == "any"
    assert rig.verify(ES256, iss="b").provider == "b"
    assert rig.refused(RS256, iss="b").code == "invalid_token"


# --- algorithms and keys --------------------------------------------------------------------------


def unsigned(claims: dict[str, Any], algorithm: str) -> str:
    return token({"alg": algorithm}, json.dumps(claims).encode(), b"")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_none_is_never_accepted(rig: Rig, algorithm: str) -> None:
    with pytest.raises(JwtError, match="algorithm is not one of those accepted"):
        rig.verifier.verify(unsigned(rig.claims(), algorithm))


def test_a_shared_secret() -> None:
    rig = Rig(provider(HS256))
    assert rig.verify(HS256).subject == "sgt.pepper"
    assert "not one of those accepted (HS256)" in rig.refused(RS256).detail


def test_with_no_keys_yet_every_token_is_refused() -> None:
    rig = Rig(provider())
    refused = rig.refused()
    assert isinstance(refused, JwtKeyError)
    assert "the keys of its issuer (provider 'idp') are not known yet" in refused.detail
    assert "https:" not in refused.detail
    assert rig.verifier.problems == []


def test_a_key_id_that_is_not_here_is_told_from_a_forgery() -> None:
    """Only for the former is the issuer asked: whoever forges can name any key that is known."""
    rig = Rig(provider(RS256))
    assert isinstance(rig.refused(pki.jwt_key("RS256", "newer")), JwtKeyError)
    forged = pki.jwt_key("RS256", "forger").sign(rig.claims(), kid=RS256.kid)
    nameless = pki.jwt_key("RS256", "forger").sign(rig.claims(), kid=None)
    of_other_kind = ES256.sign(rig.claims(), kid=RS256.kid)
    for signed in (forged, nameless, of_other_kind):
        with pytest.raises(JwtError) as caught:
            rig.verifier.verify(signed)
        assert not isinstance(caught.value, JwtKeyError)


def test_a_key_id_that_is_not_here_besides_keys_without_one() -> None:
    source = FakeSource()
    source.keys = key_set_of_jwks(pki.jwks(RS256.jwk(kid=None)))
    rig = Rig(provider(RS256, source=source))
    assert rig.verify().subject == "sgt.pepper"
    assert isinstance(rig.refused(pki.jwt_key("RS256", "newer")), JwtKeyError)


def test_a_token_is_sent_on_or_not_as_its_provider_says() -> None:
    assert Rig(provider(RS256)).verify().forward is True
    assert Rig(provider(RS256, forward=False)).verify().forward is False


@pytest.mark.parametrize(
    ("algorithms", "reason"),
    [
        (set(), "name at least one"),
        ({"none"}, "'none' is never accepted; choose from ES256"),
        ({"RS256", "ES256K"}, "'ES256K' is never accepted"),
        ({"RS256", "HS256"}, "exclude each other"),
    ],
)
def test_bad_algorithms_are_refused_when_configured(algorithms: set[str], reason: str) -> None:
    with pytest.raises(JwtProviderError, match=f"provider 'idp': .*{reason}"):
        provider(RS256, algorithms=frozenset(algorithms))


@pytest.mark.parametrize("leeway", [-1.0, math.inf, math.nan])
def test_bad_leeway(leeway: float) -> None:
    with pytest.raises(JwtProviderError, match="leeway"):
        provider(RS256, leeway=leeway)


def test_two_providers_for_one_issuer() -> None:
    with pytest.raises(JwtProviderError, match=r"two providers for 'https://idp.*'idp' and 'b'"):
        Rig(provider(RS256), provider(ES256, name="b"))
    with pytest.raises(JwtProviderError, match="two providers without an issuer"):
        Rig(provider(RS256, issuer=None), provider(ES256, name="b", issuer=None))


def test_problems_are_told() -> None:
    rig = Rig(
        provider(name="a", issuer="a", source=FakeSource(problem="/x: No such file")),
        provider(RS256, name="b", issuer="b", algorithms=frozenset({"ES256"})),
        provider(RS256, name="c", issuer="c"),
    )
    assert rig.verifier.problems == [
        "provider 'a': /x: No such file",
        "provider 'b': none of its keys can verify its algorithms (ES256)",
    ]


# --- subject and roles ----------------------------------------------------------------------------


def test_a_token_is_verified_once(rig: Rig) -> None:
    token = RS256.sign(rig.claims())
    first = rig.verifier.verify(token)
    assert all(rig.verifier.verify(token) is first for _ in range(5))
    assert len(rig.made) == 1
    assert repr(rig.verifier) == "<JwtVerifier providers=[idp] cached=1>"


def test_it_is_verified_anew_after_five_minutes(rig: Rig) -> None:
    token = RS256.sign(rig.claims())
    rig.verifier.verify(token)
    rig.clock.tick(CACHE_SECONDS - 1)
    rig.verifier.verify(token)
    assert len(rig.made) == 1
    rig.clock.tick(1)
    rig.verifier.verify(token)
    assert len(rig.made) == 2


def test_it_is_not_remembered_beyond_exp(rig: Rig) -> None:
    token = RS256.sign(rig.claims(exp=rig.clock.wall() + 10))
    rig.verifier.verify(token)
    rig.clock.tick(11)
    rig.verifier.verify(token)
    rig.verifier.verify(token)
    assert len(rig.made) == 3  # Within the leeway: good, but each time verified.
    assert "cached=0" in repr(rig.verifier)
    rig.clock.tick(60)
    with pytest.raises(JwtError, match="expired"):
        rig.verifier.verify(token)


def test_a_change_of_keys_forgets_all(rig: Rig) -> None:
    source = FakeSource(RS256)
    rig = Rig(provider(RS256, source=source))
    token = RS256.sign(rig.claims())
    rig.verifier.verify(token)
    assert rig.verifier.refresh() is False
    assert "cached=1" in repr(rig.verifier)
    source.keys = key_set_of_jwks(pki.jwks(pki.jwt_key("RS256", "other")))
    assert rig.verifier.refresh() is True
    with pytest.raises(JwtError, match="no key of the issuer"):
        rig.verifier.verify(token)


def test_a_source_may_serve_several_verifiers() -> None:
    """As it does after a change of configuration: each of them must forget what a key had verified."""
    source = FakeSource(RS256)
    rigs = [Rig(provider(RS256, source=source)) for _ in range(2)]
    token = RS256.sign(rigs[0].claims())
    for rig in rigs:
        rig.verifier.verify(token)
    source.keys = key_set_of_jwks(pki.jwks(pki.jwt_key("RS256", "newer")))
    for rig in rigs:
        assert rig.verifier.refresh() is True
        assert rig.verifier.refresh() is False
        with pytest.raises(JwtError):
            rig.verifier.verify(token)


def test_refusals_are_not_remembered(rig: Rig) -> None:
    source = FakeSource()
    rig = Rig(provider(source=source))
    token = RS256.sign(rig.claims())
    with pytest.raises(JwtError):
        rig.verifier.verify(token)
    source.keys = key_set_of_jwks(pki.jwks(RS256))
    assert rig.verifier.verify(token).subject == "sgt.pepper"


def test_the_least_recently_used_go_first(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwt_verifier, "CACHE_ENTRIES", 2)
    one, two, three = (RS256.sign(rig.claims(jti=name)) for name in "123")
    for each in (one, two, one, three):
        rig.verifier.verify(each)
    assert len(rig.made) == 3
    rig.verifier.verify(one)
    assert len(rig.made) == 3
    rig.verifier.verify(two)
    assert len(rig.made) == 4
    assert "cached=2" in repr(rig.verifier)


def test_no_token_is_kept(rig: Rig) -> None:
    token = RS256.sign(rig.claims())
    rig.verifier.verify(token)
    assert token not in str(rig.verifier._cache)
    assert all(isinstance(key, bytes) and len(key) == 32 for key in rig.verifier._cache)


# --- anything at all ------------------------------------------------------------------------------

FUZZED = Rig()
GOOD = RS256.sign(FUZZED.claims())


@given(st.text(max_size=100) | st.text(st.characters(), max_size=20).map(lambda text: GOOD + text))
def test_garbage_gives_a_jwt_error(text: str) -> None:
    if text.strip() == GOOD:
        return
    with pytest.raises(JwtError):
        FUZZED.verifier.verify(text)


def test_lone_surrogates_from_header_bytes(rig: Rig) -> None:
    with pytest.raises(JwtError):
        rig.verifier.verify("a.b.\udcff")


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("AQgw-_.=+/ \x00é"))
def test_no_single_change_goes_unnoticed(at: int, character: str) -> None:
    changed = GOOD[:at] + character + GOOD[at + 1 :]
    if changed == GOOD:
        return
    with pytest.raises(JwtError):
        FUZZED.verifier.verify(changed)


HS_RIG = Rig(provider(HS256))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "roles"]), json_values))
def test_any_claims_give_a_token_or_a_jwt_error(changes: dict[str, Any]) -> None:
    try:
        verified = HS_RIG.verifier.verify(HS256.sign({**FUZZED.claims(), **changes}))
    except JwtError:
        return
    assert all(role and "," not in role for role in verified.roles)


# --- the header -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER   abc  ", "abc"),
        ("Bearer\tabc", "abc"),
        ("abc", "abc"),
        (" abc ", "abc"),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Bearer a b", "a b"),
        ("", None),
        ("   ", None),
        ("Basic dXNlcjpwdw==", None),
        ('Digest username="a", realm="b"', None),
        ("Bearerabc", "Bearerabc"),
    ],
)
def test_token_from_header(value: str, token: str | None) -> None:
    assert token_from_header(value) == token
