"""Fixed seeds for generated cases: a test that fails fails again."""

from hypothesis import settings

settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")
