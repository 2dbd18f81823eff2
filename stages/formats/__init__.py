"""The files that stages write and other stages read."""
