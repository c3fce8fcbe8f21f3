"""Benchmarks: what the numbers of docs/performance.md are made by. No part of production."""
