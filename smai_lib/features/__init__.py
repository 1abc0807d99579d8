"""Feature maps of the multi-task networks: shown, browsed and probed."""
