"""`scripts/demo`: the Lost-Package mesh as real processes, and a tour through it; twice.

    mesh_files ──────YAML──▶ LostPackageMesh ─┐
                                              ├─starts──▶ Child, Child, …  (HMS-GOV, replicas, sidecars)
    managed_files ─▶ Operator ─▶ ManagedMesh ─┘
                     runs `hms`      ▲
              Tour ──real calls──────┘ ──what came of it──▶ Report

The *parts* of the demo: sidecars that read files, then sidecars that have all from a control plane.

A *Child* is a process that is ours to end, with its log. A *Replica* is an app and the inbound
sidecar that runs it. The *mesh* knows all of them and can kill, restart and reconfigure. A *step* of
the tour makes real requests and tells the *Report* what was seen and whether it is as it should be.
"""
