"""A stand-in for HMS-GOV: the policy version in force, and how often sidecars asked for it."""

from __future__ import annotations

import threading
from http import HTTPStatus

from scripts.lost_package.json_service import JsonHandler, serve

POLICY_VERSION = "1.3.4"


class Governance(JsonHandler):
    """HMS-GOV: `GET /policy-header` gives the policy version in force."""

    asked = 0
    """Questions so far."""
    _counting = threading.Lock()  # Each question has a thread of its own.

    def do_GET(self) -> None:  # noqa: N802 - the name http.server looks for
        """Answer `/policy-header`, `/stats` and `/healthz`."""
        match self.path:
            case "/policy-header":
                with self._counting:
                    Governance.asked += 1
                self.reply(HTTPStatus.OK, {"version": POLICY_VERSION})
            case "/stats":
                self.reply(HTTPStatus.OK, {"asked": Governance.asked})
            case "/healthz":
                self.health()
            case _:
                self.not_found()


if __name__ == "__main__":
    serve(Governance, default_name="hms-gov")
