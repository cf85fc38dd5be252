"""The listeners that a sidecar has without a configuration that says so, and the words to change them.

With a control plane a name and an address are enough to start a sidecar: where the configuration has
no listener of a direction, there is a standard one. The command line's words also move the listener
that the configuration does have, where it is the only one of its direction: what is particular to a
machine is said on that machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticCustomError

from hms_addons.config.schema_base import parse_address
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping

OFF: Final = "off"
APP: Final = "http://127.0.0.1:8080"
OUTBOUND: Final = ("127.0.0.1", 15001)
INBOUND: Final = ("0.0.0.0", 15006)  # noqa: S104 - peers must reach it
SECRET: Final = "mesh_certs"  # noqa: S105 - the name of one


class ListenerOptionError(MeshError):
    """A word of the command line is none that is understood; the message says which."""


@dataclass(frozen=True, slots=True)
class Finish:
    """What the command line does to a configuration."""

    added: Mapping[str, Any]
    """A configuration to be merged over it."""
    dropped: frozenset[str] = frozenset()
    """Names of listeners that are not wanted here."""


@dataclass(frozen=True, slots=True)
class StandardListeners:
    """What `--app`, `--inbound` and `--outbound` say; None: nothing, `off`: not wanted.

    Raises:
        ListenerOptionError: one of them is no address.
    """

    app: str | None = None
    inbound: str | None = None
    outbound: str | None = None

    def __post_init__(self) -> None:
        """Look at them now, not when the first configuration arrives."""
        if self.app not in {None, OFF}:
            _parse("app", str(self.app).removeprefix("http://").removesuffix("/"))
        self._address("inbound", INBOUND)
        self._address("outbound", OUTBOUND)

    def finish(self, document: Mapping[str, Any]) -> Finish:
        """What is to be added to a merged configuration of this sidecar, and what left out."""
        written = document.get("listeners", [])
        if not isinstance(written, list):
            return Finish({})  # validation will tell
        listeners = [item for item in written if isinstance(item, dict)]
        http = [item for item in listeners if item.get("kind") != "dns"]
        added: list[dict[str, Any]] = []
        dropped: set[str] = set()
        for direction in ("outbound", "inbound"):
            there = [item for item in http if item.get("direction", "outbound") == direction]
            if getattr(self, direction) == OFF:
                dropped |= {item["name"] for item in there if isinstance(item.get("name"), str)}
            elif not there:
                added.extend(self._standard(direction, [item.get("name") for item in listeners]))
            elif len(there) == 1 and (moved := self._moved(direction)):
                added.append({"name": there[0].get("name"), **moved})
        return Finish({"listeners": added} if added else {}, frozenset(dropped))

    def _standard(self, direction: str, taken: list[Any]) -> list[dict[str, Any]]:
        name = direction if direction not in taken else f"standard-{direction}"
        if direction == "outbound":
            host, port = self._address(direction, OUTBOUND)
            return [{"name": name, "direction": direction, "host": host, "port": port}]
        if self.app == OFF:
            return []  # nothing to lead to
        host, port = self._address(direction, INBOUND)
        return [
            {
                "name": name,
                "direction": direction,
                "host": host,
                "port": port,
                "tls": "strict",
                "secret": SECRET,
                "app": self.app or APP,
            }
        ]

    def _moved(self, direction: str) -> dict[str, Any]:
        """The keys of the only listener of its direction that the command line changes."""
        moved: dict[str, Any] = {}
        if getattr(self, direction) is not None:
            moved["host"], moved["port"] = self._address(direction, ("", 0))
        if direction == "inbound" and self.app not in {None, OFF}:
            moved["app"] = self.app
        return moved

    def _address(self, direction: str, default: tuple[str, int]) -> tuple[str, int]:
        """Host and port; a port alone keeps the standard host."""
        value: str | None = getattr(self, direction)
        if value is None or value == OFF:
            return default
        standard = INBOUND if direction == "inbound" else OUTBOUND
        if value.isascii() and value.isdigit():
            value = f"{standard[0]}:{value}"
        return _parse(direction, value)


def _parse(option: str, value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if colon and port == "0" and option != "app":
        return _parse(option, f"{host}:1")[0], 0  # any free port
    try:
        return parse_address(value)
    except PydanticCustomError as error:
        message = f"--{option} {value}: {error.message()}; or `off`"
        raise ListenerOptionError(message) from None
