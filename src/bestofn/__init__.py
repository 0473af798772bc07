"""Fine-tune a language model for the way it will be sampled: draw N, let a verifier pick one."""

__version__ = "0.1.0"
