"""IP-Adapter (arXiv 2308.06721) as plain torch: checkpoints, projections, prompts, decoupled cross-attention.

Nothing here imports ComfyUI; `nodes/host.py` is the bridge.
"""
