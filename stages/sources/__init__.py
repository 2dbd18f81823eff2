"""Where bytes come from, and the checksums that decide."""
