"""Where image prompts enter a model: what all families share, and one module for each."""
