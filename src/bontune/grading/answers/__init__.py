"""Comparison of mathematical answers: what is equal to what, exactly and strictly."""
