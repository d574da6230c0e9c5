"""CLIP-I, CLIP-T and parameter counts as the paper's table 1 has them, from embeddings; no model is run here."""
