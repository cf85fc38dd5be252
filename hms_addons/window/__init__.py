"""mitmweb and mitmproxy as the mesh's window: what people see of its traffic, and do to it.

`Window` puts the parts into a running mitmproxy program: the *ring* bounds how many flows are kept and
how much of them, *browser updates* tell mitmweb's pages of them as fast as those can read, the
*redactor* hides secrets in whatever is shown or saved, on *screens* (the places where mitmproxy does
so), the *replay guard* sends nothing that is cut or redacted, and *commands* let a person explain a flow, retry
it, open a breaker, and move a canary's weight. `hosted` puts a whole mitmweb into a slim sidecar that runs.
"""
