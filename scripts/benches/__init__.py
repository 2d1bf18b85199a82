"""The benchmarks of scripts/bench.py: one subject a file."""
