"""What can go wrong between a sidecar and its control plane, by what it means for the sidecar."""

from __future__ import annotations

from hms_addons.errors import MeshError


class ControlError(MeshError):
    """A request to the control plane was in vain; the message says where and why."""


class ControlAwayError(ControlError):
    """Nobody answers, or only to say that it cannot now: try again later.

    `retry_after` is in seconds, where the control plane named a time.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ControlUntrustedError(ControlError):
    """Whoever answers cannot prove to be the control plane; nothing was sent to it."""


class ControlRefusedError(ControlError):
    """The control plane has understood the request and will not do it.

    `status` is that of its answer; to try again as it is would be in vain.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ControlHoldsError(ControlError):
    """The control plane knows nothing of the snapshot that we have, so we keep that.

    It was restored from a backup, and has something for us once a configuration is pushed.
    """


class ControlAnswerError(ControlError):
    """The answer is none that a control plane gives: malformed, too large, or for somebody else."""
