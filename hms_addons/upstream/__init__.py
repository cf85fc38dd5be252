"""From a routed request to an upstream's answer: endpoints, connections, and what guards them.

Nouns:

- **ClusterManager** (`cluster_manager`): all clusters, running; follows the snapshot.
- **Cluster** (`cluster`): one of them: its endpoints, its balancer, its breakers.
- **Endpoint** (`endpoint`): one address; its breaker is closed, open or half-open.
- **LoadBalancer** (`load_balancer`): picks an endpoint for an attempt; the built-in ones are in
  `balancers`.
- **PriorityLevels** (`priority_levels`): which endpoints take which share of the traffic, by priority,
  zone and health (`priority_loads`); a balancer for each group of them.
- **SlowStart** (`slow_start`): the weights of endpoints that are new or have come back.
- **OutlierDetector** (`outlier_detection`): opens and closes endpoints' breakers by their results;
  `success_rate` compares them with each other.
- **HealthChecker** (`health_check`): asks endpoints whether they are well, off the request path;
  `endpoint_health` is the verdict, `health_probe` one check.
- **CircuitBreaker** (`circuit_breaker`): thresholds of a cluster or a route (`route_breakers`): how much
  at once. A **GradientController** (`adaptive_concurrency`) may move its limit of requests by latency.
- **Pool** (`pool`): an endpoint's connections, idle ones last in first out.
- **Http1Connection** (`http1_client`): one connection; `http1_exchange` is what it carries and how
  that ends, and `response_parser`, `request_encoder`, `request_pump` and `upstream_tunnel` are its
  parts.
- **Connector** (`connector`): makes connections, TCP or mutual TLS; the seam that tests replace.
- **Resolver** (`dns`): follows host names.
- **Try** (`attempt`): one try at a time of a request, with the slots that it occupies;
  **Forwarding** (`forwarding`): the order of tries, and the failover to another cluster.
- **race** (`hedging`): tries beside each other, with **LatencyQuantile** (`latency_quantile`) to say
  when; **Mirrors** (`mirroring`): copies whose answers are dropped; `elsewhere`: a fallback's cluster.
- **retry**, **outcome**, **failures**: pure decisions, the words they are made in, and the words in
  which callers are told.

Data flows: `addons/resilience` asks the cluster for an endpoint and its pool for a connection, sends
the request on it and awaits the `Answer`. When the answer is whole, the connection goes back to its
pool by itself, and with it every slot the exchange occupied.
"""
