"""Training: the loop, its stages, and what keeps a run alive."""
