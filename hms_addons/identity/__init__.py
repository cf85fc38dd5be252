"""Who is speaking: workload identity (X.509-SVID) and caller identity (JWT).

The nouns, and how data flows between them:

    files or control plane ── SecretSource ──▶ Secret ──▶ IdentityHolder ──▶ Identity
                                               (Svid + TrustBundle)          (+ TLS contexts)

- `SpiffeId` names a workload: `spiffe://<trust domain>/svc/<service>`.
- `Svid` is a certificate chain and its private key that prove one SPIFFE ID; `TrustBundle` is the
  set of roots that other workloads' SVIDs are checked against. Together they are a `Secret`.
- `IdentityHolder` turns each new `Secret` into an immutable `Identity` (the secret plus the
  `SSLContext`s made from it, with a generation number) and swaps it in by one assignment, so the
  hot path reads `holder.current` and never waits. Who must react to a rotation subscribes.
- `FileSecretSource` watches three PEM files; `Rotator` renews from any `SecretSource` on schedule.
- `verify_peer` decides, after a handshake, which `SpiffeId` is at the other end.

    Authorization header ──▶ JwtVerifier ──▶ Principal
                               ▲ JwtProvider ── KeySource ──▶ KeySet (a PEM file, a JWKS, a secret)

- `JwtProvider` says whose tokens are accepted and how; its `KeySource` yields the current `KeySet`.
- `JwtVerifier` checks a token once, remembers the answer, and yields a `Principal`.

Nothing here knows of routes, requests or mitmproxy.
"""
