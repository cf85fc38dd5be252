from __future__ import annotations

from hms_addons.control_client.failures import (
    ControlAnswerError,
    ControlAwayError,
    ControlError,
    ControlRefusedError,
    ControlUntrustedError,
)
from hms_addons.errors import MeshError


def test_whoever_waits_for_one_kind_gets_no_other() -> None:
    kinds = [ControlAnswerError, ControlAwayError, ControlRefusedError, ControlUntrustedError]
    for kind in kinds:
        assert issubclass(kind, ControlError)
        assert issubclass(kind, MeshError)
        assert not any(issubclass(kind, other) for other in kinds if other is not kind)


def test_what_they_carry() -> None:
    assert ControlAwayError("x", 5.0).retry_after == 5.0
    assert ControlRefusedError("x", 403).status == 403
