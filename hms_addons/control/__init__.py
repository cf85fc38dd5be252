"""The control plane: what stands behind all sidecars and never in front of a request.

It may import `config` and `identity`, never the data plane. The nouns, and how data flows:

    operators ──admin token──▶ server ──▶ api ──▶ the parts of the plane ──▶ store
    sidecars  ──SVID─────────▶        (auth decides)

- `process` is `hms control`; `assembly` puts a `plane` together from a data folder.
- `server` is the port: TLS with a certificate that is renewed in place, bounded connections.
- `auth` tells who calls and holds the table of who may do what; `api` is what can be done.
- `enrolment` and `tokens` say who gets which SVID, `ca` signs it (also offline, as `hms certs`).
- `store` keeps all of it; `mirror` holds it in memory, `leased` what lives only while it is repeated.
- `configs` takes pushed configurations, `followed_files` those of `--config`; `registry` knows the
  instances; `snapshots` makes of both, by `completion`, what each service's sidecars are sent.
- `lineage` knows which snapshots this store handed out: what a restored backup knows nothing of is
  not replaced.
- `fleet` knows what each sidecar has, and what is wrong with it; `gone` remembers those that fell silent.
- `readiness` says whether the store answers.
"""
