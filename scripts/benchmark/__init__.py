"""The benchmark: this sidecar beside Envoy, nginx and stock mitmdump, on one machine in one run.

Its nouns, and how data flows between them:

- A *contender* (`contenders`) is one proxy that carries a *job* (`job`): one plain hop, one hop with
  the whole policy chain, or two hops with mutual TLS between. `envoy_config`, `nginx_config` and
  `hms_config` write what each of them reads; `credentials` makes the certificates and tokens.
- The *lab* (`lab`) is where they run: a scratch folder, the upstream (`upstream`), a placement on
  the cores (`machine`), and every process that was started (`process`), each ended by its own id.
- Before a contender is measured, `checks` shows that it does the whole job.
- A *scenario* (`scenarios`, `latency`, `resources`) starts contenders and measures them in
  interleaved *rounds* (`rounds`): with wrk as fast as they go (`wrk`), or at a fixed rate from a
  client that does not omit what it could not send (`fixed_rate`).
- Its *outcome* (`outcome`) holds figures as *spreads* (`spread`), which `report` judges against the
  bars and prints, and `--json` saves.
"""
