"""Schemathesis asks what the OpenAPI document allows, and what it does not, over real TLS.

No answer may be a server error, and each must be one that the document knows, of the form it says.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks
from schemathesis.errors import InvalidSchema

from hms_addons.control.auth import PERMISSIONS
from tests.fakes.cli import GOOD
from tests.integration.control_kit import Control

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Unverified HTTPS request"),
]

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


class Api:
    """A running control plane, and a session of one kind of caller.

    Args:
        control: the control plane.
        session: shows who calls.
        service: of a sidecar, which may name no other.
    """

    def __init__(
        self, control: Control, session: requests.Session, service: str | None = None
    ) -> None:
        self.session = session
        self.service = service
        session.verify = False  # an admin may replace the root meanwhile
        session.trust_env = False
        url = f"https://127.0.0.1:{control.port}"
        document = session.get(f"{url}/openapi.json", timeout=20).json()
        self.schema = schemathesis.openapi.from_dict(document)
        self.schema.config.update(base_url=url)

    def prepare(self, case: schemathesis.Case[Any]) -> None:
        """Ask as this caller, not with the credentials that schemathesis makes up."""
        for name in list(case.headers):
            if name.lower() == "authorization":
                del case.headers[name]
        if self.service is None:
            return
        for part in (case.path_parameters, case.query, case.body):
            if isinstance(part, dict) and "service" in part:
                part["service"] = self.service


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with Control(tmp_path_factory.mktemp("openapi") / "data") as running:
        running.push(GOOD)
        yield running
        assert "Traceback" not in running.program.output
        assert running.token not in running.program.output.replace(running.token, "", 1)


@pytest.fixture(scope="module")
def sidecar_api(control: Control, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    svid = control.join("auth-svc").material.svid
    path = tmp_path_factory.mktemp("svid") / "svid.pem"
    path.write_bytes(svid.chain_pem() + svid.key_pem())
    with requests.Session() as session:
        session.cert = str(path)
        yield Api(control, session, "auth-svc")


@pytest.fixture(scope="module")
def admin_api(control: Control) -> Iterator[Api]:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {control.token}"
        yield Api(control, session)


SETTINGS = hypothesis.settings(
    max_examples=12,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def ask_everything(api: Api, name: str) -> None:
    """Put all manner of good and bad requests to one operation."""
    operation = api.schema.find_operation_by_id(name)
    answers: Counter[int] = Counter()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        try:
            cases = operation.as_strategy(generation_mode=mode)
        except (InvalidSchema, ValueError):
            continue  # nothing about it can be wrong

        @SETTINGS
        @hypothesis.given(case=cases)
        def ask(case: schemathesis.Case[Any]) -> None:
            api.prepare(case)
            response = case.call(session=api.session, timeout=70, verify=False)
            answers[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        with contextlib.suppress(Unsatisfiable):
            ask()
    assert answers


@pytest.mark.parametrize("name", PERMISSIONS)
def test_a_sidecar_gets_no_server_error(sidecar_api: Api, name: str) -> None:
    ask_everything(sidecar_api, name)


@pytest.mark.parametrize("name", PERMISSIONS)
def test_the_admin_gets_no_server_error(admin_api: Api, name: str) -> None:
    ask_everything(admin_api, name)
