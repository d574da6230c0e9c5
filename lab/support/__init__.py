"""Small random models, oracles and peers, for tests and benchmarks. On the path as `support`."""
