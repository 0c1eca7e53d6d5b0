"""Benchmarks: the relay against other servers, as ratios within one run; `python -m tests.bench` prints the table."""
