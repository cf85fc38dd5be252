"""The services of the Lost-Package mesh: what a team would write, with no line about the mesh.

    user_portal ─POST /claims─▶ claims_svc ─GET /verify-id──▶ auth_svc
                                           └POST /reimburse─▶ payments_svc

Each calls the next at an address that its environment names (CLAIMS_URL, AUTH_URL, PAYMENTS_URL).
Beside them stand `hms_gov`, the stub of HMS-GOV, and `token_issuer`, which signs JWTs to try them with.
`claims` is the seed's own call, used where its `claims.py` is not at hand.

`configs/lost-package/mesh.yaml` runs them all; each also runs by itself:
`python -m scripts.lost_package.auth_svc --port 8081 --name auth-1`.
"""
