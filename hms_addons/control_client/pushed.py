"""What a control plane hands out to a service's sidecars: one version of its configuration."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hms_addons.control_client.failures import ControlAnswerError

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BYTES: Final = 15 * 1024 * 1024
"""Of a snapshot."""
_DIGEST = re.compile(r"[0-9a-f]{1,64}")
_HISTORY = re.compile(r"[0-9a-f]{0,16}")
_LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class PushedSnapshot:
    """One version of a service's configuration, checked for shape and for whom it is."""

    version: int
    """Grows with every change."""
    digest: str
    """Of the content, by the control plane."""
    document: Mapping[str, Any]
    """A configuration in the ordinary language, as plain data; not yet validated."""
    history: str = ""
    """Versions of one history can be compared; a control plane begins a new one at each start."""

    @property
    def name(self) -> str:
        """In messages: `17.ab12…`."""
        return f"{self.version}.{self.digest}"

    @property
    def etag(self) -> str:
        """To ask for another one."""
        return f"{self.name}.{self.history}" if self.history else self.name

    def is_older_than(self, other: PushedSnapshot) -> bool:
        """Both are of one history, and this came first."""
        return self.history == other.history and self.version < other.version

    @classmethod
    def read(cls, data: Any, service: str, where: str) -> PushedSnapshot:
        """Take it from what JSON says.

        Raises:
            ControlAnswerError: it is none, or another service's.
        """
        found = data if isinstance(data, dict) else {}
        version, digest, document = map(found.get, ("version", "digest", "document"))
        history = found.get("history", "")
        if (
            not isinstance(version, int)
            or isinstance(version, bool)
            or not 0 <= version < _LARGEST
            or not isinstance(digest, str)
            or not _DIGEST.fullmatch(digest)
            or not isinstance(document, dict)
            or not isinstance(history, str)
            or not _HISTORY.fullmatch(history)
        ):
            message = f"{where} has sent a snapshot without a proper version, digest and document"
            raise ControlAnswerError(message)
        if found.get("service") != service or document.get("service", service) != service:
            message = f"{where} has sent a snapshot that is not {service}'s: it is not taken"
            raise ControlAnswerError(message)
        return cls(version, digest, document, history)

    def to_json(self, service: str) -> bytes:
        """The same as bytes that `read` takes, for the state folder."""
        return json.dumps(
            {
                "version": self.version,
                "digest": self.digest,
                "history": self.history,
                "service": service,
                "document": self.document,
            }
        ).encode()
