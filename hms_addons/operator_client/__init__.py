"""The control plane as an operator sees it: what `hms status`, `hms config` and the like do.

    --control, --ca-pin, --admin-token ──▶ OperatorClient ──▶ answers ──▶ text or JSON

- `client` asks; the control plane must prove itself by the pin before the token is sent.
- `fleet_status` says what is wrong with a fleet, and draws the table of `hms status`.
- `trust_commands` makes join tokens, and shows and rotates the CA's root.
- `config_report` says what came of a push, a diff or a rollback.
"""
