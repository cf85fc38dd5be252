"""The control plane as a sidecar sees it: an HTTP API behind TLS whose server must prove itself.

The nouns, and how data flows between them:

    --control, --ca-pin, --token ──▶ ControlClient ──▶ Channel (one httpx client for one identity)
                                          │
                     Trust (roots, mesh)  │   PushedSnapshot, SVIDs, what a report is answered with
                                          ▼

- `Trust` is whom we believe: at first contact a root with the pinned fingerprint, then the bundle.
- A `Channel` verifies the chain and `spiffe://<trust domain>/hms/control` in the handshake, before a
  byte is sent, and shows the sidecar's own SVID once there is one. After a rotation a fresh channel
  takes over; the old one ends with its last request.
- `ControlClient` has a method for each request a sidecar makes. Each is bounded in time and in what
  it reads, tries the control planes in turn, and ends in a `ControlError` that says what to do.

Nothing here decides what happens with an answer.
"""
