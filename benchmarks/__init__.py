"""What an image prompt costs, beside every peer: `python -m benchmarks` from the repository root."""
