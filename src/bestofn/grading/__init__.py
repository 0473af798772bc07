"""Graders: from what a model wrote to a verdict."""
