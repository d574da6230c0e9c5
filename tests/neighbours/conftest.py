"""Beside live checkouts of other packs, in the real host."""

import importlib.util

from bootstrap import start_host

start_host()

# Its packs need hosts of Flux; the wheel's of August 2024 has no such modules.
collect_ignore = [] if importlib.util.find_spec("comfy.ldm.lightricks") else ["test_flux.py"]
