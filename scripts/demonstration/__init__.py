"""`scripts/demo`: the Lost-Package mesh as real processes, and a tour through it.

    mesh_files ──YAML──▶ LostPackageMesh ──starts──▶ Child, Child, …   (HMS-GOV, replicas, sidecars)
                               ▲
          Tour ──real calls────┘ ──what came of it──▶ Report

A *Child* is a process that is ours to end, with its log. A *Replica* is an app and the inbound
sidecar that runs it. The *mesh* knows all of them and can kill, restart and reconfigure. A *step* of
the tour makes real requests and tells the *Report* what was seen and whether it is as it should be.
"""
