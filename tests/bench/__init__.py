"""Benchmarks that compare the relay with other servers, as ratios within one run. Run `python -m tests.bench`."""
