"""Best-of-N in use."""
