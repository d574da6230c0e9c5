"""Arithmetic that only the ids of older packs use."""
