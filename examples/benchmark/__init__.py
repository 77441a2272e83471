"""Measure what a warm start is worth and what megacache adds to it: `python -m examples.benchmark`."""
