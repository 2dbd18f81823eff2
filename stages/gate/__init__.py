"""Whether a change made a metric worse by more than noise explains: `python -m stages.gate`."""
