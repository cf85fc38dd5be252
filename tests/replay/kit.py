"""Recorded flows, as mitmproxy writes them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from mitmproxy.io import FlowWriter
from mitmproxy.test import tflow, tutils

from hms_addons.replay.message import Answered, Recorded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mitmproxy.flow import Flow

    from hms_addons.http_message import Fields


def flow(
    *,
    path: bytes = b"/x",
    method: bytes = b"GET",
    body: bytes | None = b'{"a": 1}',
    request_body: bytes | None = b"",
    headers: Fields = (),
    hms: dict[str, Any] | None = None,
) -> Any:
    """An HTTP flow with its answer."""
    request = tutils.treq(path=path, method=method, content=request_body, headers=headers)
    response = tutils.tresp(content=body, headers=((b"Content-Type", b"application/json"),))
    made = tflow.tflow(req=request, resp=response)
    if hms is not None:
        made.metadata["hms"] = hms
    return made


def file_of(*flows: Flow) -> bytes:
    """A flow file."""
    stream = io.BytesIO()
    writer = FlowWriter(stream)
    for one in flows:
        writer.add(one)
    return stream.getvalue()


def recorded(
    target: bytes = b"/x",
    *,
    number: int = 1,
    method: str = "GET",
    fields: Fields = (),
    body: bytes | None = b"",
    answer: Answered | None = None,
    **more: Any,
) -> Recorded:
    """A recorded request; answered with 200 and `old`, if nothing else is said."""
    answer = answer or Answered(200, ((b"Content-Type", b"text/plain"),), b"old")
    return Recorded(number, 0.0, method, target, fields, body, answer, **more)


def fields_of(pairs: Iterable[tuple[str, str]]) -> Fields:
    """Header fields of text."""
    return tuple((name.encode(), value.encode()) for name, value in pairs)
