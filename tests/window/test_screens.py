"""Every way out of mitmproxy that a flow's secrets could take."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy import contentviews
from mitmproxy import io as mitmproxy_io
from mitmproxy.addons import cut, dumper, export, savehar
from mitmproxy.exceptions import CommandError
from mitmproxy.test import taddons
from mitmproxy.tools.console import common, flowview
from mitmproxy.tools.web import app, static_viewer

from hms_addons.window.kept_bodies import cut as cut_bodies
from hms_addons.window.redaction import Redactor
from hms_addons.window.screens import Screens
from tests.fakes.flows import JWT, make_flow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mitmproxy.http import HTTPFlow

SECRETS = ("h-secret", "q-secret", "c-secret", "s-secret", JWT)


def secret_flow() -> HTTPFlow:
    flow = make_flow(
        "/verify-id?access_token=q-secret",
        headers=[
            ("Authorization", f"Bearer {JWT}"),
            ("X-Api-Key", "h-secret"),
            ("Cookie", "session=c-secret"),
        ],
        response_headers=[("Set-Cookie", "session=s-secret; Path=/")],
    )
    flow.backup()
    flow.request.headers["X-New"] = "1"
    return flow


@pytest.fixture
async def context() -> AsyncIterator[taddons.context]:
    with taddons.context(export.Export()) as made:
        yield made


@pytest.fixture
async def covered(context: taddons.context) -> AsyncIterator[Redactor]:
    del context
    redactor = Redactor()
    screens = Screens(redactor)
    screens.cover()
    yield redactor
    screens.uncover()
    assert repr(screens) == "<Screens wrapped=0>"


def saved(writer: Callable[[Any], Any]) -> Callable[[HTTPFlow], bytes]:
    def save(flow: HTTPFlow) -> bytes:
        file = io.BytesIO()
        writer(file).add(flow)
        return file.getvalue()

    return save


def dumped(flow: HTTPFlow) -> str:
    out = io.StringIO()
    with taddons.context() as inner:
        made = dumper.Dumper(out)
        inner.configure(made, flow_detail=3)
        made.response(flow)
    return out.getvalue()


def har(flow: HTTPFlow) -> str:
    return json.dumps(savehar.SaveHar().make_har([flow]))


def viewed(flow: HTTPFlow) -> str:
    return contentviews.prettify_message(flow.request, flow, "query").text


def terminal(flow: HTTPFlow) -> str:
    row = common.format_flow(flow, render_mode=common.RenderMode.LIST, hostheader=True)
    return b"\n".join(row.render((400,)).text).decode()


def page(flow: HTTPFlow) -> Any:
    return app.flow_to_json(flow)


def static_page(flow: HTTPFlow) -> Any:
    return vars(static_viewer)["flow_to_json"](flow)


def exported(form: str) -> Callable[[HTTPFlow], Any]:
    def make(flow: HTTPFlow) -> Any:
        return export.formats[form](flow)

    return make


WAYS: dict[str, Callable[[HTTPFlow], Any]] = {
    "flow file": saved(mitmproxy_io.FlowWriter),
    "-w": saved(lambda file: mitmproxy_io.FilteredFlowWriter(file, None)),
    "page": page,
    "static page": static_page,
    "HAR": har,
    "mitmdump": dumped,
    "content view": viewed,
    "terminal": terminal,
    "cut": lambda flow: cut.extract("request.header[x-api-key]", flow),
    **{form: exported(form) for form in export.formats},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("covered")
async def test_no_secret_gets_out(way: str) -> None:
    found = str(WAYS[way](secret_flow()))
    assert not [secret for secret in SECRETS if secret in found]
    assert "redacted-" in found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("context")
async def test_each_way_would_tell_otherwise(way: str) -> None:
    found = str(WAYS[way](secret_flow()))
    assert [secret for secret in SECRETS if secret in found]


async def test_it_can_be_switched_off(covered: Redactor) -> None:
    covered.enabled = False
    assert "h-secret" in str(WAYS["page"](secret_flow()))


@pytest.mark.usefixtures("covered")
async def test_the_terminals_view_of_a_message_hides_too() -> None:
    class Details:
        seen: Any = None

        def view(self, message: Any) -> None:
            self.seen = message

    details = Details()
    screens = Screens(Redactor())
    screens._wrap(Details, "view", lambda f: lambda s, m: f(s, screens._message(m)))
    details.view(secret_flow().request)
    screens.uncover()
    assert "h-secret" not in str(details.seen.headers.fields)
    assert flowview.FlowDetails.conn_text.__name__ == "<lambda>", "it is covered"


async def test_only_what_is_loaded_is_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mitmproxy.tools.web.app")
    before = app.flow_to_json
    screens = Screens(Redactor())
    screens.cover()
    assert app.flow_to_json is before
    screens.uncover()


# -- edits, on their way in --------------------------------------------------------------------------


def test_a_pages_edit_gets_its_secrets_back_but_in_its_comment() -> None:
    redactor = Redactor()
    flow = secret_flow()
    shown = redactor.shown(flow).request
    key = shown.headers["X-Api-Key"]
    edit = {
        "request": {"headers": [["X-Api-Key", key]], "path": shown.path, "content": key},
        "comment": f"the key is {key}",
    }
    assert Screens(redactor)._edit(edit, flow) == {
        "request": {
            "headers": [["X-Api-Key", "h-secret"]],
            "path": "/verify-id?access_token=q-secret",
            "content": key,
        },
        "comment": f"the key is {key}",
    }


@pytest.mark.parametrize(
    ("form", "part"),
    [
        ("curl", "request"),
        ("httpie", "request"),
        ("raw_request", "request"),
        ("raw", "request"),
        ("raw_response", "response"),
    ],
)
async def test_what_was_cut_is_not_exported(covered: Redactor, form: str, part: str) -> None:
    del covered
    flow = make_flow(method="POST", body=b"q" * 100, answer=b"a" * 100)
    assert exported(form)(flow)
    cut_bodies(flow, 10)
    with pytest.raises(CommandError, match=f"the {part} cannot be exported: .*10 of 100 bytes"):
        exported(form)(flow)


async def test_a_request_is_exported_though_its_answer_was_cut(covered: Redactor) -> None:
    del covered
    flow = make_flow(answer=b"a" * 100)
    cut_bodies(flow, 10)
    assert "curl" in exported("curl")(flow)
    with pytest.raises(CommandError, match="the response cannot be exported"):
        exported("raw")(flow)
