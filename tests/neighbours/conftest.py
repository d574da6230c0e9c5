"""Beside live checkouts of other packs, in the real host."""

from bootstrap import start_host

start_host()
