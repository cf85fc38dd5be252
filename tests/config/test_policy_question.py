from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from hms_addons.config.policy_header import MAX_ANSWER, PolicyHeader
from hms_addons.config.policy_question import ask_policy, open_client
from hms_addons.config.snapshot import Governance, HeaderNames

if TYPE_CHECKING:
    from collections.abc import Callable

SPEC = Governance(url="http://gov.example:9100/")


async def ask(answer: Callable[[httpx.Request], httpx.Response]) -> PolicyHeader | str:
    async with open_client(SPEC, httpx.MockTransport(answer)) as client:
        return await ask_policy(client, SPEC, HeaderNames())


async def test_the_question_is_one_get_that_asks_for_plain_json() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"version": "1.3.4"})

    asked: list[httpx.Request] = []
    found = await ask(answer)
    assert isinstance(found, PolicyHeader)
    assert (found.version, found.fields) == ("1.3.4", ((b"X-Policy-Version", b"1.3.4"),))
    (request,) = asked
    assert (request.method, str(request.url)) == ("GET", "http://gov.example:9100/policy-header")
    assert request.headers["accept"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"status_code": 500, "json": {"version": "9"}}, "its status is 500, not 200"),
        ({"status_code": 200, "json": {"pad": "x" * MAX_ANSWER}}, "it is larger than"),
        (
            {"status_code": 200, "content": b"\x1f\x8b", "headers": {"Content-Encoding": "gzip"}},
            "it is packed",
        ),
        ({"status_code": 200, "json": {"X-Caller-Role": "ADMIN"}}, "not governance's to set"),
    ],
)
async def test_an_answer_that_cannot_be_used_says_why(answer: dict[str, Any], reason: str) -> None:
    found = await ask(lambda _: httpx.Response(**answer))
    assert isinstance(found, str)
    assert found.startswith("the answer cannot be used: ")
    assert reason in found


async def test_a_redirect_does_not_choose_who_governs() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(302, headers={"Location": "http://evil.example/"})

    asked: list[str] = []
    assert "its status is 302" in str(await ask(answer))
    assert asked == ["gov.example"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("connection refused"), "ConnectError: connection refused"),
        (httpx.ReadTimeout(""), "ReadTimeout"),
        (httpx.InvalidURL("no host"), "InvalidURL: no host"),
    ],
)
async def test_a_failure_of_the_network_is_told_in_words(error: Exception, said: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise error

    assert await ask(answer) == said


async def test_what_nobody_has_foreseen_is_left_to_whoever_asks() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise KeyError("surprise")

    with pytest.raises(KeyError):
        await ask(answer)
