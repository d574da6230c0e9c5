"""Kinds of base models: where each attends to its text, and what is known of it. One file an architecture."""
