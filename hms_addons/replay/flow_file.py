"""Reads mitmproxy flow files: those of `hms record`, of `mitmdump -w`, and of mitmweb's menu.

A file that is cut, as by a full disk or a killed mitmdump, is read up to there, and the cut is told.
"""

from __future__ import annotations

import io
import re
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader

from hms_addons.errors import MeshError
from hms_addons.http_message import get_field
from hms_addons.replay.frames import DamagedError, Frames
from hms_addons.replay.message import Answered, Recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mitmproxy.http import Message

_CHUNK: Final = 256 * 1024
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110 section 9.1."""
_LAST: Final = 253_402_300_800
"""Seconds until the year 10000."""
_DIGITS: Final = 18
"""Of a length that can be."""
_BODILESS: Final = frozenset({204, 304})


class Cut(NamedTuple):
    """Where a file could not be read any further.

    Attributes:
        offset: bytes that are good.
        flows: records within them.
        lost: bytes behind them.
        why: a few words.
    """

    offset: int
    flows: int
    lost: int
    why: str

    def __str__(self) -> str:
        return (
            f"the file is {self.why} at byte {self.offset}, behind {self.flows} whole flows; "
            f"the last {self.lost} bytes are not used"
        )


class FlowFile:
    """A flow file that is read once, from its begin.

    Attributes:
        cut: where it ended too soon; known once it was read.
        unreadable: records that mitmproxy does not understand, with its reason for the first.
        other: flows that are no HTTP: TCP, UDP, DNS.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._name = name
        self._flows = 0
        self.cut: Cut | None = None
        self.unreadable = 0
        self.reason = ""
        self.other = 0

    def __repr__(self) -> str:
        return f"<FlowFile {self._name} flows={self._flows} cut={self.cut}>"

    def __iter__(self) -> Iterator[Recorded]:
        """Every HTTP flow, in the file's order.

        Raises:
            MeshError: it is no flow file at all.
        """
        for record in self._records():
            self._flows += 1
            if (recorded := self._read(record)) is not None:
                yield recorded

    def _records(self) -> Iterator[bytes]:
        frames = Frames()
        why = "cut"
        try:
            while data := self._stream.read(_CHUNK):
                if not frames.offset and not frames.rest:
                    self._check_kind(data)
                yield from frames.feed(data)
        except DamagedError as error:
            if not frames.offset:
                raise MeshError(f"{self._name} is no flow file of mitmproxy: {error}") from None
            why = f"damaged ({error})"
        lost = frames.rest + self._left()
        if lost:
            self.cut = Cut(frames.offset, self._flows, lost, why)

    def _check_kind(self, data: bytes) -> None:
        if data.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{"):
            message = (
                f"{self._name} looks like JSON, not like a flow file; if it is a HAR file, "
                f"`mitmdump -n -r {self._name} -w flows` makes one of it"
            )
            raise MeshError(message)

    def _left(self) -> int:
        """Bytes that nobody has read."""
        left = 0
        while data := self._stream.read(_CHUNK):
            left += len(data)
        return left

    def _read(self, record: bytes) -> Recorded | None:
        try:
            # mitmproxy's own reader also brings flows of older versions up to date.
            flow = next(iter(FlowReader(io.BytesIO(record)).stream()), None)
            if isinstance(flow, HTTPFlow):
                return _recorded(flow, self._flows)
        # Its readers trust what they read: whatever they trip over is this record's fault.
        except Exception as error:  # noqa: BLE001 - as above
            self.unreadable += 1
            self.reason = self.reason or str(error) or type(error).__name__
            return None
        self.other += flow is not None
        return None


def _recorded(flow: HTTPFlow, number: int) -> Recorded:
    """What is compared of a flow.

    Raises:
        ValueError: it holds what no HTTP message can.
    """
    request, response = flow.request, flow.response
    if not _METHOD.fullmatch(request.method):
        raise ValueError("a method is no token")
    answer = None
    noted = flow.metadata.get("hms_cut")  # by `window/kept_bodies`
    cut = noted if isinstance(noted, dict) else {}
    if response is not None and flow.error is None:
        fields = response.headers.fields
        body = None
        if "response" not in cut:
            body = _body(response, bodiless=request.method == "HEAD")
        answer = Answered(response.status_code, fields, body)
    return Recorded(
        number,
        _time(request.timestamp_start),
        request.method,
        request.data.path or b"/",
        request.headers.fields,
        None if "request" in cut else _body(request),
        answer,
        _by_mesh(flow),
        flow.websocket is not None
        or request.method == "CONNECT"
        or (response is not None and response.status_code == 101),  # noqa: PLR2004 - a tunnel
    )


def _time(seconds: float) -> float | None:
    return seconds if isinstance(seconds, float | int) and 0 <= seconds < _LAST else None


def _body(message: Message, *, bodiless: bool = False) -> bytes | None:
    """A body as it went over the wire; None if not all of it was kept."""
    content = message.raw_content
    if content is None:
        return None
    status = getattr(message, "status_code", 0)
    length = get_field(message.headers.fields, b"content-length")
    if length is not None and length.isdigit() and not bodiless and status not in _BODILESS:
        # Less than was announced: whoever kept it has cut it short.
        digits = length.lstrip(b"0")
        if len(digits) > _DIGITS or int(digits or b"0") > len(content):
            return None
    return content


def _by_mesh(flow: HTTPFlow) -> str | None:
    """What a sidecar has noted (see `engine/flow_view`): an answer of its own, or the service's?"""
    about = flow.metadata.get("hms")
    if not isinstance(about, dict):
        return None
    status = flow.response.status_code if flow.response is not None else 0
    if flag := about.get("flag"):
        return f"{status} {flag}"
    return None if about.get("endpoint") else f"{status}"
