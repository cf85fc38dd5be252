"""Payments-SVC: sends a refund to the soldier's bank."""

from __future__ import annotations

from http import HTTPStatus

from scripts.lost_package.json_service import JsonHandler, serve


class PaymentsService(JsonHandler):
    """Payments-SVC: `POST /reimburse` accepts a refund."""

    def do_GET(self) -> None:  # noqa: N802 - the name http.server looks for
        """Answer `/healthz`."""
        if self.path == "/healthz":
            self.health()
        else:
            self.not_found()

    def do_POST(self) -> None:  # noqa: N802 - the name http.server looks for
        """Answer `/reimburse`."""
        claim = self.read_json()
        if claim is None:
            return
        if self.path.partition("?")[0] != "/reimburse":
            self.not_found()
            return
        found = {"accepted": True, "claim": claim.get("claim"), "amount": claim.get("amount")}
        found["by"] = self.service
        self.reply(HTTPStatus.ACCEPTED, found)


if __name__ == "__main__":
    serve(PaymentsService, default_name="payments-svc")
