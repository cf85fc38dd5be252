"""mitmweb in a real browser on a running mesh: its pages, not its API.

Chromium, driven through chromedriver by the W3C WebDriver protocol, which is plain HTTP and JSON.
"""

from __future__ import annotations

import base64
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import requests

from tests.integration.basics import Closing, free_port, until
from tests.integration.mitm_kit import PASSWORD, Desk, mitmweb_desk
from tests.integration.processes import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.mitm_kit import Calling

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]

ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1500,900"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's reference (W3C WebDriver, section 11)."""


class Browser(Closing):
    """One Chromium, through chromedriver."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self._driver = Program("chromedriver", f"--port={port}")
        self._http = requests.Session()
        self._url = f"http://127.0.0.1:{port}"
        try:
            self._driver.wait_for("started successfully")
            arguments = [*ARGUMENTS, f"--user-data-dir={folder / 'profile'}"]
            capabilities = {
                "browserName": "chrome",
                "goog:chromeOptions": {"args": arguments, "binary": shutil.which("chromium")},
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            wanted = {"capabilities": {"alwaysMatch": capabilities}}
            self._url += f"/session/{self._ask('POST', '/session', wanted)['sessionId']}"
        except BaseException:
            self._driver.close()
            self._http.close()
            raise

    def close(self) -> None:
        try:
            self._ask("DELETE", "")
        finally:
            self._http.close()
            self._driver.close()

    def _ask(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        response = self._http.request(method, f"{self._url}{path}", json=document)
        value = response.json()["value"]
        assert response.ok, f"{method} {path}: {value}"
        return value

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def text(self, selector: str = "body") -> str:
        """What a person reads there."""
        script = "const e = document.querySelector(arguments[0]); return e ? e.innerText : ''"
        return str(self.run(script, selector))

    def run(self, script: str, *arguments: Any) -> Any:
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, text: str, tag: str = "*") -> None:
        """Click the innermost element with this text, once it is there."""
        says = f"normalize-space(translate(., '\N{NO-BREAK SPACE}', ' '))='{text}'"
        xpath = f"//{tag}[{says} and not(*[{says}])]"

        def found() -> list[dict[str, str]]:
            elements = self._ask("POST", "/elements", {"using": "xpath", "value": xpath})
            return list(elements)

        element = until(found, f"{text!r} to click, in: {self.text()}")[0][ELEMENT]
        self._ask("POST", f"/element/{element}/click", {})

    def sees(self, text: str, selector: str = "body") -> None:
        try:
            until(lambda: text in self.text(selector), repr(text))
        except AssertionError as error:
            raise AssertionError(f"{error} on the page:\n{self.text(selector)}") from None

    def complaints(self) -> list[str]:
        """What the page has logged as an error, since last asked."""
        entries = self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def picture(self, path: Path) -> None:
        """Save what is seen as a PNG file."""
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))


class Screen(NamedTuple):
    desk: Desk
    browser: Browser
    folder: Path


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    folder = tmp_path_factory.mktemp("screen")
    with mitmweb_desk(folder) as desk, Browser(folder) as browser:
        browser.open(f"{desk.web.url}/?token={PASSWORD.replace(' ', '%20')}")
        yield Screen(desk, browser, folder)


def hold(screen: Screen, name: str) -> Calling:
    """A call to `/plain/<name>` that is held, its flow opened in the browser."""
    screen.desk.app.requests.clear()
    screen.desk.web.set(intercept=f"~q & ~u {name}")
    calling = screen.desk.call(path=f"/plain/{name}")
    screen.browser.click(f"http://127.0.0.1:{screen.desk.files.out}/plain/{name}")
    return calling


def test_flows_and_what_the_mesh_did_are_seen(screen: Screen) -> None:
    browser, out = screen.browser, screen.desk.files.out
    screen.desk.call().result()
    screen.desk.call(path="/verify-id/no").result()
    browser.sees("https://auth-svc.svc/verify-id")
    browser.sees("outbound route=prefix:/verify-id cluster=auth-svc")
    browser.sees("inbound route=default:app")
    browser.sees("flag=RBAC outbound")
    browser.sees(
        f"mesh:out@127.0.0.1:{out},mesh:peers@127.0.0.1:{screen.desk.files.peers}", "footer"
    )
    browser.picture(screen.folder / "flows.png")


def test_the_capture_page_lives_with_the_mesh_mode(screen: Screen) -> None:
    browser = screen.browser
    browser.click("Capture")
    browser.sees("Explicit HTTP(S) Proxy")
    checked = "return document.querySelector('input[type=checkbox]').checked"
    assert browser.run(checked) is False
    screen.desk.web.set(mode=[f"regular@127.0.0.1:{free_port()}"])
    until(lambda: browser.run(checked), "tick at the regular proxy")
    browser.sees(f"mesh:out@127.0.0.1:{screen.desk.files.out}", "footer")
    screen.desk.web.set(mode=[])
    until(lambda: not browser.run(checked), "tick taken away")
    browser.picture(screen.folder / "capture.png")
    browser.click("Flow List")


def test_a_held_request_is_resumed_and_replayed_by_its_buttons(screen: Screen) -> None:
    browser, desk = screen.browser, screen.desk
    calling = hold(screen, "held")
    browser.click("Resume")
    assert calling.result().status_code == 200
    assert len(desk.app.seen) == 1
    browser.click("Replay")
    until(lambda: len(desk.app.seen) == 2, "replayed request")
    browser.click("Comment", "a")
    browser.sees("outbound route=prefix:/plain cluster=plain")
    browser.click("Connection", "a")
    browser.sees(f"127.0.0.1:{screen.desk.app.port}")
    browser.picture(screen.folder / "flow.png")


def test_a_held_request_is_aborted_by_its_button(screen: Screen) -> None:
    calling = hold(screen, "doomed")
    screen.browser.click("Abort")
    with pytest.raises(requests.ConnectionError):
        calling.result()
    assert not screen.desk.app.seen


def test_the_page_has_no_complaints(screen: Screen) -> None:
    assert screen.browser.complaints() == []
    assert "Traceback" not in screen.desk.program.output
