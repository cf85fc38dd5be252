"""The control plane as an operator sees it: what `hms status`, `hms config` and the like do.

    --control, --ca-pin, --admin-token ──▶ OperatorClient ──▶ answers ──▶ text or JSON

- `client` asks; the control plane must prove itself by the pin before the token is sent.
- `fleet_status` says what is wrong with a fleet, and draws the table of `hms status`.
- `trust_commands` makes join tokens, and shows and rotates the CA's root.
- `seen_versions` remembers which configuration its user has been shown, so that a push replaces no other.
- `config_commands` pushes files, and shows what was pushed.
"""
