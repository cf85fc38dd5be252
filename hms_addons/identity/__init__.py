"""Who is speaking: workload identity (X.509-SVID) and caller identity (JWT).

The nouns, and how data flows between them:

    FileSecret, or Rotator ◀─ SecretSource ──▶ SecretMaterial ──▶ IdentityHolder ──▶ Identity
                                           (Svid + TrustBundle)               (+ TLS contexts)

- `SpiffeId` names a workload: `spiffe://<trust domain>/svc/<service>`.
- `Svid` is a certificate chain and its private key that prove one SPIFFE ID; `TrustBundle` is the
  set of roots that other workloads' SVIDs are checked against. Together: `SecretMaterial`.
- `IdentityHolder` turns new material into an immutable `Identity` (the material plus the
  `SSLContext`s made from it, with a generation number) and swaps it in by one assignment, so the
  hot path reads `holder.current` and never waits. Who must react to a rotation subscribes.
- `FileSecret` follows three PEM files; `Rotator` renews from a `SecretSource` on schedule.
- `ControlSecret` is the source that a control plane stands behind: key, CSR, check of what comes
  back. `ControlIdentity` puts it together with a holder, a rotator and the state folder.
- `verify_peer` decides, after a handshake, which `SpiffeId` is at the other end.

    Authorization header ──▶ JwtVerifier ──▶ VerifiedToken
                               ▲ JwtProvider ── KeySource ──▶ KeySet (a PEM file, a JWKS, a secret)

- `JwtProvider` says whose tokens are accepted and how; its `KeySource` yields the current `KeySet`.
- `JwtVerifier` checks a token once, remembers the answer, and yields a `VerifiedToken`.

Nothing here knows of routes, requests or mitmproxy.
"""
