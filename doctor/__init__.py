"""The doctor: reports which model files are installed, which are broken, and what a goal needs. Runs without ComfyUI."""
