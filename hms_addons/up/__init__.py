"""`hms up`: a whole mesh on this machine from one file.

    mesh.yaml ──mesh_file──▶ Mesh (instances, configuration)
                                │  plan: diff(old, new) → what to stop, restart, start
                                ▼
    supervisor ── keeper ── child   one `hms sidecar … -- CMD` for each instance, and `hms control`
        │
        └── report (lines, JSON events, or a live table of `stats`), log_files, run_state

It stands beside the mesh, never in it: it starts programs, asks their admin ports and the control
plane, and knows nothing of the data path.
"""
