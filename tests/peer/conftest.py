"""Beside a live checkout of the de-facto pack, in the real host."""

from bootstrap import start_host

start_host()
