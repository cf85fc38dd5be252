"""`scripts/bench window`: what watching costs in memory, with a real browser at mitmweb.

A mitmweb with the mesh carries requests from plain clients to a plain upstream; Chromium has its page open.
Memory is read after the first few requests, and then again and again: the ring of flows fills within
that time, so its filling counts.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hms_addons.up.machine import FreePorts, is_free
from scripts.benchmark import machine
from scripts.benchmark.process import START_SECONDS, BenchError, Child
from scripts.pictures.browser import Browser

if TYPE_CHECKING:
    from collections.abc import Sequence

MESH = Path(__file__).resolve().parents[2] / "hms_addons" / "mesh.py"
REQUESTS = 100_000
BAR_MB = 60.0
CLIENTS = 16
FIRST = 50
"""Requests until memory is read first."""
LOOKS = 20
"""How often it is read in all."""
BODY = 2_000
"""Bytes of each answer."""

CONFIG = """\
listeners:
  - {{ name: out, host: 127.0.0.1, port: {port}, routes: [{{ match: {{ prefix: / }}, action: {{ cluster: app }} }}] }}
clusters:
  - {{ name: app, endpoints: ["127.0.0.1:{app}"] }}
"""
REQUEST = (
    b"GET /claims/%d HTTP/1.1\r\nHost: app.svc\r\nAccept: application/json\r\n"
    b"Authorization: Bearer some.secret.token\r\nCookie: session=abcdef\r\n\r\n"
)

EPILOG = """\
examples:
  scripts/bench window                     the issue's bar: 100,000 requests, a few minutes
  scripts/bench window --requests 20000    shorter
  scripts/bench window --no-ring           how it would be without a bound

exit status: 0 the bar is met; 1 it is missed; 2 it could not be measured.
"""


async def _app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every request alike."""
    answer = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    body = b'{"claim": "%s"}' % (b"x" * (BODY - 13))
    good, bad = answer % (b"200 OK", len(body), body), answer % (b"503 Busy", 2, b"{}")
    served = 0
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            served += 1
            writer.write(bad if served % 100 == 0 else good)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _client(port: int, numbers: list[int]) -> None:
    """Takes numbers, one a request, until there are none left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while numbers:
            writer.write(REQUEST % numbers.pop())
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))
    finally:
        writer.close()


async def ask(port: int, requests: int) -> None:
    """Send so many requests to a listener, over a few connections."""
    numbers = list(range(requests))
    await asyncio.gather(*(_client(port, numbers) for _ in range(CLIENTS)))


async def _measure(web: Child, port: int, requests: int) -> float:
    """The most that it grew by, in MB."""
    await ask(port, FIRST)
    first = peak = web.rss_mb()
    print(f"{FIRST:>8} requests: {first:6.1f} MB", flush=True)
    began, done = time.monotonic(), 0
    for look in range(1, LOOKS + 1):
        part = requests * look // LOOKS - done
        await ask(port, part)
        done += part
        now = web.rss_mb()
        peak = max(peak, now)
        rate = done / (time.monotonic() - began)
        print(f"{done:>8} requests: {now:6.1f} MB, {rate:5.0f}/s", flush=True)
    return peak - first


def _wait(web: Child, *ports: int) -> None:
    end = time.monotonic() + START_SECONDS
    while any(is_free(port) for port in ports):
        web.ensure_alive()
        if time.monotonic() > end:
            raise BenchError(f"mitmweb does not listen:\n{web.log_tail()}")
        time.sleep(0.1)


async def _run(options: argparse.Namespace, folder: Path) -> float:
    ports = FreePorts()
    port, app, page = ports.take(), ports.take(), ports.take()
    config, token = folder / "mesh.yaml", secrets.token_hex(8)
    config.write_text(CONFIG.format(port=port, app=app), encoding="utf-8")
    words = ["mitmweb", "-s", str(MESH), "--no-web-open-browser"]
    words += ["--web-port", str(page), "--set", f"web_password={token}"]
    words += ["--set", f"hms_config={config}", "--set", "hms_admin=off"]
    words += ["--set", f"confdir={folder}"]
    words += ["--set", "hms_flow_ring=0", "--set", "hms_flow_bytes=0"] if options.no_ring else []
    server = await asyncio.start_server(_app, "127.0.0.1", app)
    web = Child("mitmweb", words, folder, machine.available_cores())
    try:
        await asyncio.to_thread(_wait, web, port, page)
        with await asyncio.to_thread(Browser, folder) as browser:
            await asyncio.to_thread(browser.open, f"http://127.0.0.1:{page}/?token={token}")
            await asyncio.to_thread(browser.sees, "Flow List")
            growth = await _measure(web, port, options.requests)
            web.ensure_alive()
            rows = "return document.querySelectorAll('.flow-table tbody tr').length"
            print(f"the page shows {await asyncio.to_thread(browser.run, rows)} rows of its list")
            return growth
    finally:
        web.stop()
        server.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure it; the exit status as in `EPILOG`."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench window",
        description="Memory of mitmweb with the mesh, watched by a browser, under load.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=int, default=REQUESTS, help="how many (%(default)s)")
    parser.add_argument("--no-ring", action="store_true", help="without a bound on the flows")
    options = parser.parse_args(arguments)
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        print(f"bench: {' and '.join(missing)} missing: apt-get install chromium-driver")
        return 2
    with tempfile.TemporaryDirectory(prefix="hms-window-") as folder:
        try:
            growth = asyncio.run(_run(options, Path(folder)))
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
    print(
        f"grew by {growth:.1f} MB at most in {options.requests} requests; the bar is {BAR_MB:g} MB"
    )
    return 0 if growth <= BAR_MB else 1


if __name__ == "__main__":
    sys.exit(main())
