"""What is kept of a flow's bodies: their beginnings, and a note of what is missing.

A cut body must never pass for a whole one. `flow.metadata["hms_cut"]` tells of it, in saved files too;
`missing` says what a flow lacks before it may be sent again.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

CUT: Final = "hms_cut"
"""The key in `flow.metadata`."""


def size_of(flow: HTTPFlow) -> int:
    """Bytes of bodies and messages that a flow holds."""
    size = len(flow.request.data.content or b"")
    if flow.response is not None:
        size += len(flow.response.data.content or b"")
    if flow.websocket is not None:
        size += sum(len(message.content) for message in flow.websocket.messages)
    return size


def cut(flow: HTTPFlow, limit: int) -> bool:
    """Keep `limit` bytes of each body of a flow that is over, and as much of its messages; whether it had more."""
    missing: dict[str, Any] = dict(flow.metadata.get(CUT, {}))
    before = dict(missing)
    for name in ("request", "response"):
        message = getattr(flow, name)
        content = message.data.content if message is not None else None
        if content is not None and len(content) > limit:
            kept = message.data.content = content[:limit]
            missing[name] = {
                "kept": limit,
                "of": len(content),
                "sha256": sha256(kept).hexdigest(),
            }
            _cut_backup(flow, name, limit)
    if flow.websocket is not None:
        messages = flow.websocket.messages
        size = sum(len(message.content) for message in messages)
        gone = 0
        while size > limit and len(messages) - gone > 1:
            size -= len(messages[gone].content)
            gone += 1
        if gone:
            del messages[:gone]
            missing["messages"] = missing.get("messages", 0) + gone
    if missing == before:
        return False
    flow.metadata[CUT] = missing
    _tell(flow, missing)
    return True


def missing(flow: HTTPFlow, part: Literal["request", "response"] = "request") -> str | None:
    """What a flow's request or response lacks, so that it must not be sent again; None if it is whole.

    Whoever has written another body into it has made it whole. A response that is not there lacks nothing.
    """
    message = flow.request if part == "request" else flow.response
    if message is None:
        return None
    if message.data.content is None:
        return "its body has passed without being held (see the listener's buffer_limit)"
    noted = flow.metadata.get(CUT)
    note = noted.get(part) if isinstance(noted, dict) else None
    if not isinstance(note, dict):
        return None
    if sha256(message.data.content).hexdigest() != note.get("sha256"):
        return None
    return (
        f"its body was cut when it was kept: {note['kept']} of {note['of']} bytes are here "
        "(hms_flow_body_limit says how many are kept of later ones; or write a whole body into it)"
    )


def _cut_backup(flow: HTTPFlow, name: str, limit: int) -> None:
    """What a revert would bring back."""
    backup: Any = flow._backup  # noqa: SLF001 - mitmproxy has no other way to it
    message = backup.get(name) if isinstance(backup, dict) else None
    if isinstance(message, dict) and len(message.get("content") or b"") > limit:
        message["content"] = message["content"][:limit]


def _tell(flow: HTTPFlow, missing: dict[str, Any]) -> None:
    parts = [
        f"{name} {missing[name]['kept']} of {missing[name]['of']} bytes"
        for name in ("request", "response")
        if name in missing
    ]
    if "messages" in missing:
        parts.append(f"{missing['messages']} messages gone")
    text = f"cut: {', '.join(parts)}"
    noted = flow.metadata.get("hms")
    ours = noted.get("comment", "") if isinstance(noted, dict) else ""
    if flow.comment == ours:  # else it is somebody else's
        flow.comment = f"{ours.partition(' | cut: ')[0]} | {text}" if ours else text
        if isinstance(noted, dict):
            noted["comment"] = flow.comment
