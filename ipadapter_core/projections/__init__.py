"""Image projection networks: encoder features and face embeddings -> image tokens. Each is sized from its own tensors."""
