"""Benchmarks and quality measurements that anyone can run."""
