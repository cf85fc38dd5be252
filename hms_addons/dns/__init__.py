"""DNS for the app: the mesh's names lead to its sidecar, all others are somebody else's to answer.

A *query* is read (`wire`), what it asks for is looked up among the mesh's *names* (`names`), and it is answered here
or passed on unchanged, byte for byte, to the system's resolvers (`forwarder`, `resolv_conf`). `server` has the
sockets of one listener. In mitmproxy's own `dns` mode `engine.native_dns` asks the same `names`.
"""
