"""Engines draw completions: from a model in this process, or from a server."""
