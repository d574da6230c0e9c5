"""A graphics card's figures in one run: `python -m lab.gpu` from the repository root."""
