"""`scripts/demo`: `hms up` on the Lost-Package mesh, a claim that goes through it, and a guided tour.

    configs/lost-package/mesh.yaml ──copy──▶ MeshFile ──┐
                                                        ▼
    Tour ──step──▶ LostPackage ──starts──▶ Up (the `hms up` process: what it says, line by line)
      │                └──calls──▶ the portal's door, the sidecars' ports, `hms …` commands
      └──tells──▶ Report

A *step* makes real requests, breaks something on purpose, and tells the *Report* what was seen and
whether it is as it should be. A *Pulse* calls all the while, so that a step can say that none failed.
"""
