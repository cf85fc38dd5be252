"""The control plane's HTTP API.

The nouns, and how a request flows between them:

    server ──▶ Frame: who calls? how often? how much? ──▶ GuardedRoute: may it? ──▶ handler ──▶ parts
                                                                                      of the plane
- `frame` comes before any parsing; it also answers when something breaks inside.
- `guard` asks `control.auth.PERMISSIONS`; a route that has no place there cannot be made.
- `problems` makes every error problem details, in which nothing is quoted that a client sent.
- `models` is what comes in and goes out; `openapi` writes the document of it, and a page.
- The routes: `trust` (bundle, SVIDs, join tokens, CA), `sidecars` (snapshots, reports, the fleet),
  `config`, `services`, `health`. `waiting` is how a long poll waits.
"""
