"""The tutorial's loop, its peers and the pipeline, measured in one run: `python -m benchmarks`."""
