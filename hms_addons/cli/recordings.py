"""`hms record` and `hms replay`: real traffic, kept, and sent to a new version."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hms_addons.cli.output import FAILED, USAGE, Json, fail, print_json, write
from hms_addons.cli.plugins import DEFAULT_ADMIN
from hms_addons.cli.running import chosen_instances
from hms_addons.cli.up import DEFAULT
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from hms_addons.replay.player import Player, Result
    from hms_addons.replay.recording import FlowWriter, Source
    from hms_addons.replay.selection import Wishes

MAX_SIZE = "256MiB"
_SHOWN = 1.0


def record(  # noqa: PLR0913 - each is an option
    service: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVICE",
            help="A service of the mesh that `hms up` runs, or one instance of it, as auth-svc-2.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", envvar="HMS_OUT", help="The flow file to write.")
    ] = Path("recorded.flows"),
    duration: Annotated[
        str, typer.Option("--for", envvar="HMS_FOR", metavar="DURATION", help="At most 1h.")
    ] = "60s",
    admin: Annotated[
        str | None,
        typer.Option(
            "--admin",
            envvar="HMS_ADMIN",
            metavar="HOST:PORT",
            help=f"Admin port of a sidecar, in place of SERVICE; {DEFAULT_ADMIN} without either.",
        ),
    ] = None,
    file: Annotated[
        Path, typer.Option("--file", envvar="HMS_FILE", help="What `hms up` runs.")
    ] = DEFAULT,
    direction: Annotated[
        str,
        typer.Option(
            envvar="HMS_DIRECTION",
            help="inbound: what the service is asked; outbound: what it asks others; both.",
        ),
    ] = "inbound",
    max_body: Annotated[
        str, typer.Option(envvar="HMS_MAX_BODY", help="Longer bodies are left out.")
    ] = "1MiB",
    max_size: Annotated[
        str, typer.Option(envvar="HMS_MAX_SIZE", help="Of the file; recording ends there.")
    ] = MAX_SIZE,
    *,
    force: Annotated[
        bool, typer.Option("--force", envvar="HMS_FORCE", help="Write over an existing file.")
    ] = False,
) -> None:
    """Record the requests of running sidecars into a mitmproxy flow file, until Ctrl-C or --for.

    Values of Authorization, cookies, tokens and the like are left out; bodies are as they are. A body
    that streams is not recorded, only that it was there. Nothing is slower but while it records.

    Example: `hms record claims-svc --for 30s --out claims.flows`

    Example: `hms record --admin 127.0.0.1:15000 --direction both`
    """
    from hms_addons.replay.recording import FlowWriter  # noqa: PLC0415 - start-up time

    query, most = _wishes_of_recording(duration, direction, max_body, max_size)
    sources = _sources(service, admin, file.expanduser())
    try:
        writer = FlowWriter(out.expanduser(), most, force=force)
    except MeshError as error:
        raise fail(str(error)) from None
    failed = True
    try:
        asyncio.run(_record(sources, query, writer))
        failed = False
    finally:
        _close(writer, failed=failed)
    _tell_recorded(writer, out, direction)


def _wishes_of_recording(
    duration: str, direction: str, max_body: str, max_size: str
) -> tuple[dict[str, str], int]:
    from pydantic_core import PydanticCustomError  # noqa: PLC0415 - start-up time

    from hms_addons.config.schema_base import parse_size  # noqa: PLC0415
    from hms_addons.recording_wish import RecordingWish  # noqa: PLC0415

    query = {"for": duration, "direction": direction, "max_body": max_body}
    try:
        RecordingWish.of(query)  # a sidecar would say the same, but later
        return query, parse_size(max_size)
    except MeshError as error:
        raise fail(f"--{str(error).replace('_', '-')}", USAGE) from None
    except PydanticCustomError as error:
        raise fail(f"--max-size: {error.message()}", USAGE) from None


def _sources(service: str | None, admin: str | None, file: Path) -> list[Source]:
    from hms_addons.replay.recording import Source  # noqa: PLC0415 - start-up time
    from hms_addons.up.run_state import RunState  # noqa: PLC0415

    if service is None:
        address = admin or DEFAULT_ADMIN
        return [Source(address, address.removeprefix("http://").rstrip("/"))]
    if admin is not None:
        said = f" (HMS_ADMIN={admin} is set)" if os.environ.get("HMS_ADMIN") == admin else ""
        raise fail(f"give SERVICE or --admin, not both{said}", USAGE)
    try:
        found = RunState(file).told()["instances"]
    except MeshError as error:
        raise fail(f"{error}; --admin HOST:PORT records a sidecar that runs without it") from None
    chosen = [one for one in chosen_instances(found, service) if one["admin"]]
    if not chosen:
        raise fail(f"{service} has no sidecar, so there is nothing to record")
    return [Source(one["name"], f"127.0.0.1:{one['admin']}") for one in chosen]


async def _record(sources: list[Source], query: dict[str, str], writer: FlowWriter) -> None:
    from hms_addons.replay.recording import record as read  # noqa: PLC0415 - start-up time
    from hms_addons.tasks import TaskSet  # noqa: PLC0415

    names = ", ".join(source.name for source in sources)

    def began() -> None:
        if not writer.tally.problems:
            sys.stderr.write(f"recording {names} for {query['for']}; Ctrl-C ends it earlier\n")

    tasks = TaskSet("record")
    reading = tasks.start(read(sources, query, writer, began), "read")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, reading.cancel)
    while not reading.done():
        await asyncio.wait({reading}, timeout=_SHOWN)
        _progress(f"{writer.tally.flows} requests, {writer.tally.size} bytes")
    _progress("")
    await tasks.close()
    if not reading.cancelled():
        reading.result()


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _close(writer: FlowWriter, *, failed: bool) -> None:
    try:
        writer.close(failed=failed)
    except MeshError as error:
        raise fail(str(error)) from None


def _tell_recorded(writer: FlowWriter, out: Path, direction: str) -> None:
    tally = writer.tally
    for problem in tally.problems:
        sys.stderr.write(f"hms: {problem}\n")
    if tally.problems and not tally.flows:
        raise typer.Exit(FAILED)
    lines = [f"{tally.flows} requests in {out}"]
    if tally.incomplete:
        lines.append(f"{tally.incomplete} of them with a body that streamed, or was too long")
    if tally.dropped:
        lines.append(f"{tally.dropped} were dropped: they came faster than they could be taken")
    if tally.full:
        lines.append("the file has reached --max-size: what came then is not in it")
    if not tally.flows and not tally.problems and direction == "inbound":
        lines.append("no request came to the inbound listener; what the service itself asks of")
        lines.append("others is recorded with --direction outbound")
    write("\n".join(lines) + "\n")
    if tally.problems or tally.dropped:
        raise typer.Exit(FAILED)


def replay(  # noqa: PLR0913 - each is an option
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A flow file: hms record's, or mitmproxy's.")
    ],
    to: Annotated[
        str,
        typer.Option("--to", envvar="HMS_TO", metavar="URL", help="Where the new version is."),
    ],
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", "-H", envvar="HMS_HEADER", help="'Name: value', set on every request."
        ),
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(
            "--query", envvar="HMS_QUERY", help="NAME=VALUE of a parameter that has this name."
        ),
    ] = None,
    ignore_header: Annotated[
        list[str] | None,
        typer.Option(envvar="HMS_IGNORE_HEADER", help="A response header that may differ."),
    ] = None,
    ignore_body: Annotated[
        list[str] | None,
        typer.Option(
            envvar="HMS_IGNORE_BODY",
            metavar="PATH",
            help="A JSON value that may differ, as '$.items[*].at'.",
        ),
    ] = None,
    timeout: Annotated[
        str, typer.Option(envvar="HMS_TIMEOUT", metavar="DURATION", help="For one answer.")
    ] = "15s",
    at_once: Annotated[
        int, typer.Option(envvar="HMS_AT_ONCE", min=1, max=64, help="Requests in flight.")
    ] = 1,
    *,
    all_methods: Annotated[
        bool,
        typer.Option(
            "--all-methods",
            envvar="HMS_ALL_METHODS",
            help="Replay POST, PUT, PATCH and DELETE, too: they happen once more.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Send recorded requests to a new version, and show how its answers differ.

    Compared are status, headers (but Date and others that always differ) and bodies: JSON by its
    structure, text by its lines. GET, HEAD and OPTIONS are sent, others with --all-methods. What was
    redacted is not in the file: give it by --header and --query. Exit code 0: all the same; 1:
    something differs; 2: something, or all, could not be compared, as the file is cut, say.

    Example: `hms replay claims.flows --to http://127.0.0.1:9002`

    Example: `hms replay claims.flows --to http://127.0.0.1:15001 -H 'x-version: v2' --ignore-body '$.id'`
    """
    from hms_addons.replay.report import INCOMPLETE  # noqa: PLC0415 - start-up time

    try:
        player = _player(to, _wishes(header, query, all_methods), ignore_header, ignore_body, timeout, at_once)  # fmt: skip
        code = _replay(file.expanduser(), player, to, as_json=as_json)
    except MeshError as error:
        raise fail(str(error), INCOMPLETE) from None
    except OSError as error:
        raise fail(f"cannot read {file}: {error.strerror or error}", INCOMPLETE) from None
    except KeyboardInterrupt:
        raise fail("ended before all was replayed", INCOMPLETE) from None
    if code:
        raise typer.Exit(code)


def _wishes(headers: list[str] | None, query: list[str] | None, all_methods: bool) -> Wishes:  # noqa: FBT001 - passed on
    from hms_addons.replay.selection import Wishes  # noqa: PLC0415 - start-up time

    fields = {}
    for text in headers or ():
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or not text.isprintable():
            raise MeshError(f"--header: {text!r} is no 'Name: value'")
        try:
            pair = (name.strip().encode("latin-1"), value.strip().encode("latin-1"))
        except UnicodeEncodeError:
            raise MeshError(f"--header: {text!r} has characters that no header can have") from None
        fields[name.strip().lower()] = pair
    parameters = {}
    for text in query or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise MeshError(f"--query: {text!r} is no NAME=VALUE")
        parameters[name] = value
    return Wishes(all_methods, fields, parameters)


def _player(
    to: str,
    wishes: Wishes,
    headers: list[str] | None,
    paths: list[str] | None,
    timeout: str,
    at_once: int,
) -> Player:
    from pydantic_core import PydanticCustomError  # noqa: PLC0415 - start-up time

    from hms_addons.config.schema_base import parse_duration  # noqa: PLC0415
    from hms_addons.replay.body_difference import parse_path  # noqa: PLC0415
    from hms_addons.replay.comparison import Rules  # noqa: PLC0415
    from hms_addons.replay.player import Player, Target  # noqa: PLC0415

    try:
        seconds = parse_duration(timeout)
    except PydanticCustomError as error:
        raise MeshError(f"--timeout: {error.message()}") from None
    try:
        rules = Rules(
            frozenset(name.strip().rstrip(":").lower() for name in headers or ()),
            tuple(parse_path(path) for path in paths or ()),
        )
    except ValueError as error:
        raise MeshError(f"--ignore-body: {error}") from None
    if seconds <= 0:
        raise MeshError("--timeout: more than 0")
    return Player(Target(to), wishes, rules, timeout=seconds, at_once=at_once)


def _replay(path: Path, player: Player, to: str, *, as_json: bool) -> int:
    from hms_addons.replay.flow_file import FlowFile  # noqa: PLC0415 - start-up time
    from hms_addons.replay.report import document_of, exit_code, summary_of, text_of  # noqa: PLC0415

    results: list[Result] = []

    def show(result: Result) -> None:
        if as_json:
            results.append(result)
        elif text := text_of(result):
            write(text)
        else:
            _progress(f"{player.tally.compared} compared")

    async def play(flows: FlowFile) -> None:
        async with player:
            await player.play(flows, show)

    with path.open("rb") as stream:
        flows = FlowFile(stream, str(path))
        asyncio.run(play(flows))
    _progress("")
    if as_json:
        print_json(document_of(results, player.tally, flows, str(path), to))
    else:
        write(summary_of(player.tally, flows, to))
    return exit_code(player.tally, flows)
