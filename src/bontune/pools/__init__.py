"""Pools: graded completions on disk, how they are drawn, and how two of them compare."""
