"""Hides secrets in what is shown and saved of a flow; what is sent has them still.

A flow in memory always holds the truth: scripts see it, and it is what goes on its way. Whatever leads to a
screen, a file or a clipboard is given a copy, in which each secret is replaced by `[redacted-…]`, with a
digest that is different in every process, but the same for the same secret: two flows with one
token can be told, and nobody can try tokens out on it. What a person sends back, having edited such a
copy, is turned into the truth again (`restored`).

What is secret is said by `hms_addons.redaction`, and by the option `hms_redact_names`. Of cookies the names stay, of `Authorization` the scheme. Bodies are left alone.
"""

from __future__ import annotations

import copy
import re
import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Literal

from hms_addons.errors import MeshError
from hms_addons.redaction import HIDDEN, hide_in_url, hide_in_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mitmproxy.flow import Flow

    from hms_addons.http_message import Fields

_DIGEST: Final = 8
"""Bytes: no two secrets of one sidecar have the same."""
PLACEHOLDER: Final = re.compile(rf"\[redacted-[0-9a-f]{{{2 * _DIGEST}}}\]")

_SCHEME: Final = re.compile(rb"(?:basic|bearer|digest|dpop|negotiate|token) +", re.IGNORECASE)
_AUTHORIZATION: Final = frozenset({b"authorization", b"proxy-authorization"})
_ENCODING: Final = ("utf-8", "surrogateescape")
"""As mitmproxy shows header fields."""


class UnknownSecretError(MeshError):
    """A placeholder stands for a secret that is not here."""


class Redactor:
    """Makes the copies.

    Args:
        names: of further headers and query parameters, in any case.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.enabled = True
        self._key = secrets.token_bytes(32)
        self._names: frozenset[bytes] = frozenset()
        self.also(names)

    def __repr__(self) -> str:
        return f"<Redactor {'on' if self.enabled else 'off'}>"

    def also(self, names: Iterable[str]) -> None:
        """Take these names for those of secrets, too; in place of what was said before."""
        self._names = frozenset(name.lower().encode() for name in names)

    # -- a flow -----------------------------------------------------------------------------------

    def shown[F: Flow](self, flow: F) -> F:
        """`flow`, or a copy to show or save in its place; bodies are shared with it."""
        if not self.enabled or not _is_http(flow):
            return flow
        return self._copy(flow, {})

    def _copy[F: Flow](self, flow: F, found: dict[str, bytes]) -> F:
        shown: Any = copy.copy(flow)
        shown.request = self._message(shown.request, found)
        if shown.response is not None:
            shown.response = self._message(shown.response, found)
        if shown._backup is not None:  # noqa: SLF001 - a revert brings it back, a file holds it
            shown._backup = self._state(shown._backup, found)  # noqa: SLF001 - as above
        made: F = shown
        return made

    def message(self, message: Any) -> Any:
        """The same for a request or a response alone."""
        return self._message(message, {}) if self.enabled else message

    def _message(self, message: Any, found: dict[str, bytes]) -> Any:
        shown = copy.copy(message)
        data = shown.data = copy.copy(message.data)
        data.headers = copy.copy(data.headers)
        data.headers.fields = self._fields(data.headers.fields, found)
        if data.trailers is not None:
            data.trailers = copy.copy(data.trailers)
            data.trailers.fields = self._fields(data.trailers.fields, found)
        if hasattr(data, "path"):
            data.path = self._target(data.path, found)
        return shown

    def _state(self, state: dict[str, Any], found: dict[str, bytes]) -> dict[str, Any]:
        """What `flow.get_state()` has made."""
        shown = dict(state)
        for part in ("request", "response"):
            message = shown.get(part)
            if isinstance(message, dict):
                message = shown[part] = dict(message)
                for name in ("headers", "trailers"):
                    if message.get(name):
                        message[name] = self._fields(message[name], found)
                if "path" in message:
                    message["path"] = self._target(message["path"], found)
        return shown

    # -- its parts --------------------------------------------------------------------------------

    def fields(self, fields: Fields) -> Fields:
        """Header fields as they may be shown."""
        return self._fields(fields, {})

    def target(self, target: bytes) -> bytes:
        """A request's target as it may be shown."""
        return self._target(target, {})

    def _fields(self, fields: Fields, found: dict[str, bytes]) -> Fields:
        return tuple((name, self._value(name.lower(), value, found)) for name, value in fields)

    def _value(self, name: bytes, value: bytes, found: dict[str, bytes]) -> bytes:
        if name in _AUTHORIZATION:
            scheme = _SCHEME.match(value)
            length = scheme.end() if scheme else 0
            return value[:length] + self._hide(value[length:], found)
        if name == b"cookie":
            return b";".join(self._pair(pair, found) for pair in value.split(b";"))
        if name == b"set-cookie":
            pair, *attributes = value.split(b";")
            return b";".join((self._pair(pair, found), *attributes))
        return hide_in_value(name, value, lambda secret: self._hide(secret, found), self._names)

    def _pair(self, pair: bytes, found: dict[str, bytes]) -> bytes:
        name, equals, value = pair.partition(b"=")
        return name + equals + self._hide(value, found) if equals else self._hide(pair, found)

    def _target(self, target: bytes, found: dict[str, bytes]) -> bytes:
        return hide_in_url(target, lambda secret: self._hide(secret, found), self._names)

    def _hide(self, secret: bytes, found: dict[str, bytes]) -> bytes:
        bare = secret.strip()
        if not bare or HIDDEN.fullmatch(bare):
            return secret  # hidden already, before it was saved
        placeholder = (
            f"[redacted-{blake2b(secret, digest_size=_DIGEST, key=self._key).hexdigest()}]"
        )
        found[placeholder] = secret
        return placeholder.encode()

    # -- and back ---------------------------------------------------------------------------------

    def restored(self, text: str, flow: Flow) -> str:
        """`text`, which a person has written into `flow`, with the secrets that it had in its place.

        Raises:
            UnknownSecretError: it holds a placeholder that does not stand for a secret of this flow.
        """
        wanted = set(PLACEHOLDER.findall(text))
        if not wanted or not _is_http(flow):
            return text
        found: dict[str, bytes] = {}
        self._copy(flow, found)
        own = set(placeholders(flow))  # of a flow from a file, which never had them here
        if unknown := sorted(wanted - found.keys() - own):
            message = (
                f"{unknown[0]} stands for a secret that this flow does not have: write the secret "
                "itself, or leave that field as it is"
            )
            raise UnknownSecretError(message)
        return PLACEHOLDER.sub(
            lambda match: found[match[0]].decode(*_ENCODING) if match[0] in found else match[0],
            text,
        )


def placeholders(flow: Flow, part: Literal["request", "response"] = "request") -> list[str]:
    """What really stands in place of secrets in a flow's request or response: they are not here.

    The window has put it there before the flow was saved, or `hms record` has.
    """
    message = getattr(flow, part) if _is_http(flow) else None
    if message is None:
        return []
    fields = message.headers.fields + (message.trailers.fields if message.trailers else ())
    head = [getattr(message.data, "path", b""), *(value for _, value in fields)]
    return [found.decode() for found in HIDDEN.findall(b"\n".join(head))]


def _is_http(flow: Flow) -> bool:
    return flow.type == "http"
