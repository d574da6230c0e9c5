"""What an image prompt costs, beside every peer: `python -m lab.benchmarks` from the repository root."""
