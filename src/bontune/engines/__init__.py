"""From prompts to pools: M completions a prompt, with their log-probabilities."""
