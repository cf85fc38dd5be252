"""Recorded traffic: `hms record` gets it from running sidecars, `hms replay` sends it to a new version.

    sidecars' /record ──recording──▶ flow file ──flow_file──▶ Recorded ──player──▶ Answered
                                                                 │                    │
                                                                 └─ comparison ◀──────┘
                                                                        │
                                             Outcome of each request ──▶ report: text or JSON

- `frames` cuts a flow file into its records, and says where it is cut or damaged.
- `flow_file` makes of each record what is compared: `message` has those types.
- `selection` says which recorded requests can be replayed, and why the others cannot.
- `player` sends them, a few at a time; `comparison`, `content_coding` and `body_difference` are pure.
- `report` prints. `recording` is the other command: it reads what sidecars record.
"""
