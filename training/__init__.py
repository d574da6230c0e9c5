"""The trainer: pictures and captions in, an adapter out. Runs on accelerate; as a command, or behind the node."""
