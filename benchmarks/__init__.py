"""Benchmarks: pairs measured side by side in one run, told as ratios. `make bench` runs all."""
