"""Makes the README's pictures anew: the Lost-Package mesh in mitmweb, and the table of `hms up`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from rich.console import Console
from rich.text import Text

from scripts.pictures.browser import KEYS, Browser, until

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MESH = ROOT / "configs" / "lost-package" / "mesh.yaml"
PORTAL = "http://127.0.0.1:15080"
ISSUER = "http://127.0.0.1:15091/token?role={}"
START = 240.0
"""Seconds for the mesh to be ready on a busy machine."""
WIDE = 118
"""Columns of the terminal in the picture."""


def hms(*words: str) -> str:
    """What a command says."""
    done = subprocess.run(
        ["hms", *words],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
        env={**os.environ, "COLUMNS": str(WIDE), "FORCE_COLOR": "1", "TERM": "xterm-256color"},
    )
    return done.stdout


@contextlib.contextmanager
def up(log: Path) -> Iterator[None]:
    """The mesh, as a person starts it; ready."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["hms", "up", str(MESH)], cwd=ROOT, stdout=out, stderr=out, start_new_session=True
        )
    try:
        end = time.monotonic() + START
        while "instances are ready" not in log.read_text(encoding="utf-8"):
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"pictures: the mesh is not up:\n{log.read_text(encoding='utf-8')}")
            time.sleep(0.5)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def ask(url: str, token: str = "", body: dict[str, Any] | None = None) -> str:
    """What is answered, good or bad."""
    headers = {"Authorization": token} if token else {}
    method = "GET" if body is None else "POST"
    return requests.request(method, url, json=body, headers=headers, timeout=30).text


def traffic() -> None:
    """A few claims, good and bad ones."""
    manager = ask(ISSUER.format("PROGRAM_MANAGER")).strip()
    clerk = ask(ISSUER.format("CLERK")).strip()
    ask(f"{PORTAL}/claims", manager, {"amount": "120 USD"})
    ask(f"{PORTAL}/claims", clerk, {"amount": "9000 USD"})


def take_window(folder: Path) -> None:
    """mitmweb on the sidecar of Claims-SVC."""
    url = hms("open", "claims-svc", str(MESH), "--no-browser").rpartition("window  ")[2].strip()
    with Browser(folder, (1360, 720)) as browser:
        browser.open(url)
        browser.sees("Flow List")
        traffic()
        browser.sees("/reimburse")
        browser.click("Options", "a")
        browser.click("Display Command Bar")
        browser.write(
            "//div[contains(@class, 'command')]//input",
            f"hms.break '~u reimburse' cluster 1m{KEYS['enter']}",
        )
        browser.sees("open by hand")
        ask(f"{PORTAL}/claims", ask(ISSUER.format("PROGRAM_MANAGER")).strip(), {"amount": "80 USD"})
        browser.write("//div[contains(@class, 'command')]//input", f"hms.mend{KEYS['enter']}")
        browser.sees("closed again")
        browser.click("Display Command Bar")
        browser.click("Flow List", "a")
        row = "(//tr[contains(., '/verify-id') and contains(., 'outbound')])[1]"
        browser.press(f"{row}/td[contains(@class, 'col-path')]")
        browser.sees("[redacted-")
        browser.picture(HERE / "mitmweb.png")
    hms("open", "claims-svc", str(MESH), "--close")


def take_table(folder: Path, log: Path) -> None:
    """The table, with what is said above it, as in a terminal."""
    load = [subprocess.Popen([sys.executable, __file__, "load"]) for _ in range(2)]
    try:
        table = hms("top", str(MESH), "--once")
    finally:
        for process in load:
            process.terminate()
            process.wait()
    said = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    shown = Console(record=True, width=WIDE, file=(folder / "console").open("w", encoding="utf-8"))
    shown.print(Text(f"$ hms up {MESH.relative_to(ROOT)}", style="bold"))
    shown.print(Text.from_ansi("\n".join(line[:WIDE] for line in said[-7:])))
    shown.print(Text.from_ansi(table))
    page = folder / "table.html"
    page.write_text(shown.export_html(inline_styles=True), encoding="utf-8")
    with Browser(folder / "terminal", (1010, 580)) as browser:
        browser.open(f"file://{page}")
        browser.run(
            "document.body.style.cssText = arguments[0]",
            "background:#fff;margin:12px;overflow:hidden",
        )
        browser.picture(HERE / "hms-up.png")


def main() -> int:
    """Take both."""
    if "load" in sys.argv[1:]:
        while True:
            traffic()
            time.sleep(1)
    missing = [name for name in ("chromium", "chromedriver", "hms") if shutil.which(name) is None]
    if missing:
        print(f"pictures: {', '.join(missing)} missing (Debian: chromium chromium-driver)")
        return 2
    with tempfile.TemporaryDirectory(prefix="hms-pictures-") as name:
        folder, log = Path(name), Path(name) / "up.log"
        with up(log):
            until(lambda: "accepted" in _claim(), "a claim that is accepted")
            take_window(folder)
            take_table(folder, log)
    for picture in sorted(HERE.glob("*.png")):
        print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size / 1000:.0f} kB")
    return 0


def _claim() -> str:
    token = ask(ISSUER.format("PROGRAM_MANAGER")).strip()
    return ask(f"{PORTAL}/claims", token, {"amount": "120 USD"})


if __name__ == "__main__":
    sys.exit(main())
