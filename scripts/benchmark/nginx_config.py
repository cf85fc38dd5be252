"""nginx twice: as the upstream behind every contender, and as a contender."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BODY_SIZES: Mapping[str, int] = {"64KiB": 64 * 2**10, "10MiB": 10 * 2**20}
"""The files that the upstream serves below `/download/`, and the largest body `/upload` takes."""

ECHO = (
    '{"valid":true,"role":"$http_x_caller_role","version":"$http_x_policy_version",'
    '"caller":"$http_x_caller_service","uri":"$request_uri"}'
)
"""The upstream's answer, which shows the headers that arrived: the very requests that are measured
can be checked."""


def upstream(port: int) -> str:
    """The upstream on `port`: `/` echoes, `/download/SIZE`, `/upload`, `/requests` counts."""
    largest = max(BODY_SIZES.values())
    server = f"""
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ return 200 '{ECHO}'; }}
    location /download/ {{ alias html/; }}
    location = /requests {{ stub_status; }}
    # nginx answers `return` before it has read the body. A body is read whole, in memory, on its way
    # to another location, which gets only its length.
    location = /upload {{
      client_max_body_size 0;
      client_body_buffer_size {largest};
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header X-Received $request_length;
      proxy_pass http://self/received;
    }}
    location = /received {{ return 200 $http_x_received; }}"""
    return _config(port, server, cluster="self")


def proxy(port: int, upstream_port: int) -> str:
    """A reverse proxy on `port` with kept-alive upstream connections, and no other work."""
    # Streaming both ways, as the other contenders do: by default nginx writes large bodies to disk.
    server = f"""
    listen 127.0.0.1:{port} backlog=1024;
    client_max_body_size 0;
    location / {{
      proxy_pass http://upstream;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
    }}"""
    return _config(upstream_port, server, cluster="upstream")


def _config(cluster_port: int, server: str, *, cluster: str) -> str:
    """A whole configuration file: one worker, logging nothing."""
    # As root, nginx would give its worker a user that may not read the scratch folder.
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"  {kind}_temp_path temp-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
{temporary}
  access_log off;
  default_type application/octet-stream;
  sendfile on;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  upstream {cluster} {{
    server 127.0.0.1:{cluster_port};
    keepalive 128;
    keepalive_requests 1000000000;
  }}
  server {{{server}
  }}
}}
"""
