"""The doctor: says which model files are there, which are broken, and what a goal still needs. Runs without ComfyUI."""
