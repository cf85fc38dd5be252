"""The control plane: what stands behind all sidecars and never in front of a request.

Today it holds the certificate authority (`ca`), which also works offline as `hms certs`.
It may import `config` and `identity`, never the data plane.
"""
