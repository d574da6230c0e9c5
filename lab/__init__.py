"""The laboratory: the toy world, the demo, the paper's claims tried on it, the benchmarks. No user needs it."""
