"""Pictures: reading files and lists of them, preprocessing for an encoder, and contact sheets."""
