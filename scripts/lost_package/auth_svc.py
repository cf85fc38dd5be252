"""Auth-SVC: confirms a soldier's identity.

It says which replica answered and which headers arrived, so that a person can see both.
"""

from __future__ import annotations

from http import HTTPStatus

from scripts.lost_package.json_service import JsonHandler, serve


class AuthService(JsonHandler):
    """Auth-SVC: `GET /verify-id` confirms a soldier's identity."""

    def do_GET(self) -> None:  # noqa: N802 - the name http.server looks for
        """Answer `/verify-id` and `/healthz`."""
        match self.path.partition("?")[0]:
            case "/verify-id":
                found = {
                    "verified": True,
                    "replica": self.service,
                    "headers": self.headers.items(),
                }
                self.reply(HTTPStatus.OK, found)
            case "/healthz":
                self.health()
            case _:
                self.not_found()


if __name__ == "__main__":
    serve(AuthService, default_name="auth-svc")
