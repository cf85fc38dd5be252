"""The data plane: from bytes on a listener to a decided, forwarded and answered exchange.

Nouns:

- **Listener** (`listener`): a bound port; makes one `Http1Server` per connection.
- **Http1Server** (`http1_server`): one downstream connection, which serves one request at a time. It
  is built up in stages: `client_transport` is when it is read, how long a write may wait and how it
  ends; `request_reader` turns bytes into `RequestHead`s and bodies, by the rules in `framing`;
  `response_writer` answers, by way of `flow_control`.
- **Lane** (`lane`): what serves the requests of a connection. `fast_lane` is the proxy, `admin_lane` answers
  for a plugin's own port; `native_lane` does the fast lane's work inside mitmproxy's own layers.
- **HookChain** (`hook_chain`): the seven phases, compiled from the registered plugins.
- **FlowEvents** (`flow_events`): who listens to which mitmproxy event; nobody costs nothing.
- **identifiers**: a name for each request, and a trace context.
- **flow_builder**: mitmproxy's objects, built at a tenth of their usual cost.

Data flows down: listener → http1_server → lane → hook_chain → (upstream) and the answer back up.
"""
