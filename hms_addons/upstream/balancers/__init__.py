"""The built-in balancers, one a file; `load_balancer` is the protocol they follow."""
