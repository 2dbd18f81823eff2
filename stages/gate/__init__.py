"""Whether a change has made the metrics worse than noise does: `python -m stages.gate`."""
