"""What `hms init` writes: a mesh of two tiny services that needs nothing but Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.errors import MeshError
from hms_addons.up.machine import is_free

if TYPE_CHECKING:
    from pathlib import Path

FIRST_PORT: Final = 8000
_TRIED: Final = 100

_MESH: Final = """\
# A mesh on one machine. `hms up` starts it, Ctrl-C ends it, and edits of this file are applied while it
# runs: try `replicas: 3`. Then: curl localhost:%(port)d
services:

  # The name is what others call it by: http://hello-svc.svc
  web-svc:
    command: "{python} web.py"     # {port}, {name}, {python} and {mesh}, where its calls go, are filled in
    port: %(port)d                     # where it listens; left out, any free port
    # entry: true                  # its calls go to port 15001 (as the first one's do if it is free);
    #                                PORT and HMS_URL tell every app its port and where its calls go
    watch: "web.py"                # restarted when this changes

  hello-svc:
    command: "{python} hello.py"
    replicas: 2
    health: /healthz               # answers 2xx while it is well
    watch: "hello.py"
    # version: v2                  # with `service: hello-svc` under another name: a canary
    # env: { GREETING: Servus }
    # folder: ../hello             # where it runs
    # sidecar: false               # for what stands beside the mesh: a database, a stub

# The mesh's configuration, as `hms check` knows it; a file's name, or a list of names, will do as well.
# Without any, http://localhost:15001/?host=SERVICE.svc leads to each service by its name.
mesh:
  listeners:
    - name: outbound
      port: 15001
      routes:
        - match: { prefix: /hello }
          action: { cluster: hello-svc, timeout: 2s, retries: 2 }
  clusters:
    - name: hello-svc
      load_balancer: least_request
      tls_context: { sds: mesh_certs }    # mutual TLS; the control plane provides the certificates
"""

_WEB: Final = '''\
"""Asks hello-svc and passes on what it says. It knows nothing of the mesh but its address."""

import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MESH = os.environ["HMS_URL"]


class Web(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            with urllib.request.urlopen(f"{MESH}/hello") as answer:
                status, body = answer.status, answer.read()
        except OSError as error:
            status, body = 502, f"{error}\\n".encode()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"web-svc has asked: " + body)


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Web).serve_forever()
'''

_HELLO: Final = '''\
"""Greets, and says which instance it is."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GREETING = os.environ.get("GREETING", "Hello")


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{GREETING} from {os.environ['HMS_INSTANCE']}\\n".encode())

    def log_message(self, *words):
        if self.path != "/healthz":
            super().log_message(*words)


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Hello).serve_forever()
'''


def write_starter(folder: Path) -> list[Path]:
    """Write the files; those that were written.

    Raises:
        MeshError: one of them is there already, and nothing was written; or it cannot be.
    """
    port = next((p for p in range(FIRST_PORT, FIRST_PORT + _TRIED) if is_free(p)), FIRST_PORT)
    files = {
        folder / "mesh.yaml": _MESH % {"port": port},
        folder / "web.py": _WEB,
        folder / "hello.py": _HELLO,
    }
    if there := [path for path in files if path.exists()]:
        names = ", ".join(path.name for path in there)
        message = f"{names} is here already, and nothing was written: choose an empty folder"
        raise MeshError(message)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise MeshError(f"cannot write into {folder}: {error.strerror or error}") from error
    return list(files)
