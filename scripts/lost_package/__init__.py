"""The services of the Lost-Package mesh: what a team would write, with no line about the mesh.

- `auth_svc` confirms who a soldier is, `payments_svc` sends a refund: ordinary JSON services.
- `hms_gov` stands in for HMS-GOV: it answers `/policy-header`, and counts how often it was asked.
- `claims` is Claims-SVC's call to Auth-SVC, used where the seed's own `claims.py` is not at hand.

Each runs by itself: `python -m scripts.lost_package.auth_svc --port 8081 --name auth-1`.
"""
