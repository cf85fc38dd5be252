"""Chromium, driven through chromedriver by the W3C WebDriver protocol, which is plain HTTP and JSON."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self

import requests

from hms_addons.up.machine import FreePorts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's reference (W3C WebDriver, section 11)."""
PATIENCE = 60.0
"""Seconds to wait for what is to come on a busy machine."""
KEYS = {"enter": "\ue007", "tab": "\ue004"}
"""Named keys (W3C WebDriver, section 17.4.2)."""


class BrowserError(Exception):
    """The browser does not do as it is told; the message says what it was told."""


def until[T](look: Callable[[], T], what: str) -> T:
    """Look again and again until something is seen.

    Raises:
        BrowserError: it has not been seen in `PATIENCE`.
    """
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        if time.monotonic() > end:
            raise BrowserError(f"no {what} within {PATIENCE:g} s")
        time.sleep(0.05)
    return found


class Browser:
    """One Chromium.

    Args:
        folder: for its settings.
        size: of its window, in pixels.
    """

    def __init__(self, folder: Path, size: tuple[int, int] = (1500, 900)) -> None:
        self._http = requests.Session()
        port = FreePorts().take()
        self._url = f"http://127.0.0.1:{port}"
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until(self._is_up, "chromedriver")
            window = "--window-size={},{}".format(*size)
            arguments = [*ARGUMENTS, window, f"--user-data-dir={folder / 'profile'}"]
            capabilities = {
                "browserName": "chrome",
                "goog:chromeOptions": {"args": arguments, "binary": shutil.which("chromium")},
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            wanted = {"capabilities": {"alwaysMatch": capabilities}}
            self._url += f"/session/{self._ask('POST', '/session', wanted)['sessionId']}"
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        try:
            self._ask("DELETE", "")
        finally:
            self._end()

    def _end(self) -> None:
        self._http.close()
        self._driver.terminate()
        self._driver.wait()

    def _is_up(self) -> bool:
        try:
            return bool(self._ask("GET", "/status")["ready"])
        except requests.ConnectionError:
            return False

    def _ask(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        response = self._http.request(method, f"{self._url}{path}", json=document)
        value = response.json()["value"]
        if not response.ok:
            raise BrowserError(f"{method} {path}: {value}")
        return value

    def open(self, url: str) -> None:
        """Go to a page."""
        self._ask("POST", "/url", {"url": url})

    def text(self, selector: str = "body") -> str:
        """What a person reads there."""
        script = "const e = document.querySelector(arguments[0]); return e ? e.innerText : ''"
        return str(self.run(script, selector))

    def run(self, script: str, *arguments: Any) -> Any:
        """What a piece of JavaScript returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, text: str, tag: str = "*") -> None:
        """Click the innermost element with this text, once it is there."""
        says = f"normalize-space(translate(., '\N{NO-BREAK SPACE}', ' '))='{text}'"
        self._ask("POST", f"/element/{self._find(f'//{tag}[{says} and not(*[{says}])]')}/click", {})

    def press(self, xpath: str) -> None:
        """Click what an XPath leads to, once it is there."""
        self._ask("POST", f"/element/{self._find(xpath)}/click", {})

    def write(self, xpath: str, text: str) -> None:
        """Type into what an XPath leads to, once it is there."""
        self._ask("POST", f"/element/{self._find(xpath)}/value", {"text": text})

    def _find(self, xpath: str) -> str:
        def found() -> list[dict[str, str]]:
            return list(self._ask("POST", "/elements", {"using": "xpath", "value": xpath}))

        return until(found, f"{xpath} in: {self.text()}")[0][ELEMENT]

    def sees(self, text: str, selector: str = "body") -> None:
        """Wait until it is read there."""
        try:
            until(lambda: text in self.text(selector), repr(text))
        except BrowserError as error:
            raise BrowserError(f"{error} on the page:\n{self.text(selector)}") from None

    def complaints(self) -> list[str]:
        """What the page has logged as an error, since last asked."""
        entries = self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def picture(self, path: Path) -> None:
        """Save what is seen as a PNG file."""
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))
