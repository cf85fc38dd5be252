from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import pytest

from hms_addons.identity.identity_holder import (
    Identity,
    IdentityHolder,
    SecretError,
    SecretMaterial,
)
from hms_addons.identity.spiffe_id import SpiffeId
from tests.fakes import pki

if TYPE_CHECKING:
    from hms_addons.identity.svid import Svid


def material(svid: Svid | None = None) -> SecretMaterial:
    return SecretMaterial(svid or pki.svid("auth-svc"), pki.bundle())


def test_generations_grow_and_contexts_are_new() -> None:
    holder = IdentityHolder("mesh_certs")
    assert holder.current is None
    assert repr(holder) == "<IdentityHolder mesh_certs empty>"
    first = holder.replace(material(), time.time())
    assert holder.current is first
    assert first.generation == 1
    assert first.spiffe_id == SpiffeId.parse("spiffe://mpsa.mil/svc/auth-svc")
    assert first.trust_domain == "mpsa.mil"
    second = holder.replace(material(), time.time())
    assert holder.current is second
    assert second.generation == 2
    assert second.client_context is not first.client_context
    assert "mpsa.mil/svc/auth-svc generation=2 until=20" in repr(holder)
    assert second.server_context(require_peer=True) is second.strict_server_context
    assert second.server_context(require_peer=False) is second.permissive_server_context


def test_listeners_hear_of_each_swap_until_they_leave() -> None:
    holder = IdentityHolder("mesh_certs")
    heard: list[Identity] = []
    leave = holder.subscribe(heard.append)
    stay = holder.subscribe(heard.append)
    first = holder.replace(material(), time.time())
    assert heard == [first, first]
    leave()
    leave()
    second = holder.replace(material(), time.time())
    assert heard == [first, first, second]
    stay()
    holder.replace(material(), time.time())
    assert len(heard) == 3


def test_a_failing_listener_hinders_nobody(caplog: pytest.LogCaptureFixture) -> None:
    holder = IdentityHolder("mesh_certs")
    heard: list[Identity] = []

    def fail(identity: Identity) -> None:
        raise ValueError(identity.generation)

    holder.subscribe(fail)
    holder.subscribe(heard.append)
    holder.replace(material(), time.time())
    assert len(heard) == 1
    assert "a listener failed" in caplog.text


def test_a_listener_may_leave_while_it_is_called() -> None:
    holder = IdentityHolder("mesh_certs")
    calls: list[int] = []
    leave = holder.subscribe(lambda identity: (calls.append(identity.generation), leave()))
    holder.replace(material(), time.time())
    holder.replace(material(), time.time())
    assert calls == [1]


def test_unusable_material_leaves_the_old_identity() -> None:
    holder = IdentityHolder("mesh_certs")
    first = holder.replace(material(), time.time())
    foreign = SecretMaterial(pki.svid("auth-svc"), pki.bundle("other.example"))
    for bad, now, reason in (
        (material(), pki.svid("auth-svc").not_after + 1, "expired"),
        (foreign, time.time(), "is not of the trust domain other.example"),
        (
            SecretMaterial(pki.svid("auth-svc"), type(pki.ca()).create("mpsa.mil").bundle),
            time.time(),
            "no root of the bundle",
        ),
    ):
        with pytest.raises(SecretError, match=f"'mesh_certs' is not usable.*{reason}"):
            holder.replace(bad, now)
        assert holder.current is first


def test_the_swap_is_logged_without_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    holder = IdentityHolder("mesh_certs")
    identity = holder.replace(material(), time.time())
    assert "generation 1, spiffe://mpsa.mil/svc/auth-svc, serial" in caplog.text
    assert "PRIVATE" not in caplog.text + repr(identity)
    assert "PrivateKey" not in repr(identity)
