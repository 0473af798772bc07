"""The paper's experiments as suites: every arm trained on equal generations, measured alike, and put claim by claim."""
