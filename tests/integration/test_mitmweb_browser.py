"""mitmweb in a real browser on a running mesh: its pages, not its API.

`scripts.pictures.browser` drives it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import requests

from scripts.benchmark.window import ask
from scripts.pictures.browser import KEYS, Browser
from tests.integration.basics import free_port, until
from tests.integration.mitm_kit import PASSWORD, Desk, mitmweb_desk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.mitm_kit import Calling

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]


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


def hold(screen: Screen, name: str, **arguments: Any) -> Calling:
    """A call to `/plain/<name>` that is held, its flow opened in the browser."""
    screen.desk.app.requests.clear()
    screen.desk.web.set(intercept=f"~q & ~u {name}")
    calling = screen.desk.call(path=f"/plain/{name}", **arguments)
    screen.browser.click(f"http://127.0.0.1:{screen.desk.files.out}/plain/{name}")
    screen.browser.click("Flow", "a")
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
    browser.sees("\N{NO ENTRY}")
    browser.picture(screen.folder / "flows.png")


def test_a_held_request_is_edited_and_resumed_and_its_secrets_stay_hidden(screen: Screen) -> None:
    browser, desk = screen.browser, screen.desk
    calling = hold(screen, "mine", headers={"X-Note": "before"})
    browser.sees("Bearer [redacted-")
    assert desk.files.token()["Authorization"].rpartition(".")[2] not in browser.text()
    value = "//*[contains(@class, 'kv-value') and text()='before']"
    browser.press(value)
    browser.write(value, "after ")
    browser.press("//*[contains(@class, 'kv-key') and starts-with(text(), 'X-Note')]")
    until(lambda: "after" in str(desk.web.held()["request"]["headers"]), "edit")
    browser.picture(screen.folder / "edited.png")
    browser.click("Resume")
    assert calling.result().status_code == 200
    sent = desk.app.last
    assert "after" in str(sent.header("x-note"))
    assert str(sent.header("authorization")).startswith("Bearer eyJ")


def test_a_command_is_run_in_the_command_bar(screen: Screen) -> None:
    browser, desk = screen.browser, screen.desk
    desk.web.set(intercept="")
    desk.call(path="/plain/asked").result()
    browser.click(f"http://127.0.0.1:{desk.files.out}/plain/asked")
    browser.click("Response", "a")
    browser.sees("X-From")  # its body has been asked for: it has the focus
    browser.click("Options", "a")
    browser.click("Display Command Bar")
    bar = "//div[contains(@class, 'command')]//input"
    browser.write(bar, f"hms.explain @focus{KEYS['enter']}")
    browser.sees("GET /plain/asked: 200, outbound on out")
    browser.write(bar, f"hms.break @focus cluster 1m{KEYS['enter']}")
    browser.sees("cluster plain: open by hand for 60s")
    assert desk.call(path="/plain/asked").result().status_code == 503
    browser.write(bar, f"hms.mend{KEYS['enter']}")
    browser.sees("closed again: plain")
    browser.picture(screen.folder / "commands.png")
    assert desk.call(path="/plain/asked").result().status_code == 200
    browser.click("Display Command Bar")
    browser.click("Flow", "a")


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


def test_watching_costs_no_more_the_longer_it_goes_on(screen: Screen) -> None:
    """`scripts/bench window` does so with 100,000 requests."""
    desk, browser = screen.desk, screen.browser
    desk.web.set(intercept="", hms_flow_ring=50)
    process = Path(f"/proc/{desk.program.pid}/status")

    def size() -> float:
        """Its memory, in MB."""
        return int(process.read_text().partition("VmRSS:")[2].split()[0]) / 1024

    asyncio.run(ask(desk.files.out, 100))  # fills it twice
    before = size()
    asyncio.run(ask(desk.files.out, 500))
    assert size() - before < 6
    kept = len(desk.web.flows())
    assert 48 <= kept <= 50
    # What was dropped has gone from the page as well.
    browser.sees(f"of {kept} flows", "footer")
    desk.web.set(hms_flow_ring=2000)


def test_the_page_has_no_complaints(screen: Screen) -> None:
    assert screen.browser.complaints() == []
    assert "Traceback" not in screen.desk.program.output
