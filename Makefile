PY := .venv/bin/python
.PHONY: setup check demo bench gpu gpu-carry claims train-demo test test-slow test-peer test-neighbours test-clients test-page lint

setup: .venv/ready
.venv/ready: tests/requirements.txt
	python3 -m venv .venv
	$(PY) -m pip install -q -r tests/requirements.txt
	$(PY) -m pip install -q --no-deps nodetool==0.5.3 ip-adapter==0.1.0 insightface==2.1
	touch $@
demo: setup ; $(PY) -m lab.demo
bench: setup ; $(PY) -m lab.benchmarks
# all that waits for a graphics card, in under 9 minutes: OUT is the folder for the results, GPU_PYTHON an interpreter with
# PyTorch; a bare machine needs no setup, but what `make gpu-carry` (COMFYUI_PATH, IPADAPTER_PLUS_PATH) put into build/gpu
gpu: ; $(or $(GPU_PYTHON),python3) -m lab.gpu --out $(or $(OUT),out/gpu)
gpu-carry: ; $(or $(GPU_PYTHON),$(PY)) -m lab.gpu --carry
claims: setup ; $(PY) -m lab.claims
train-demo: setup ; $(PY) -m lab.toy --stages vae clip reader base adapter control flux flux-adapter
lint: setup ; $(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m pyright --pythonpath $(PY)
# two workers of one thread each: more threads than cores make them wait for each other
check test: export OMP_NUM_THREADS := 1
check: lint ; $(PY) -m pytest -q -n 2 --dist worksteal tests/core
test: lint ; $(PY) -m pytest -q -n 2 --dist worksteal
# beside the de-facto pack: IPADAPTER_PLUS_PATH names its checkout, COMFYUI_PATH a host that it runs on (0.8.0)
test-peer: setup ; $(PY) -m pytest -q -m peer tests/peer
# beside other packs: NEIGHBOURS_PATH names a folder of their checkouts, COMFYUI_PATH a host that loads them (0.33.0),
# NEIGHBOURS_PYTHON an interpreter with their packages, NEIGHBOURS_TABLE a file for the table
test-neighbours: setup ; $(or $(NEIGHBOURS_PYTHON),$(PY)) -m pytest -q -m neighbours tests/neighbours
# Krita's own client and SwarmUI's graphs: CLIENTS_PATH names a folder with checkouts of krita-ai-diffusion,
# comfyui-tooling-nodes and SwarmUI, COMFYUI_PATH a host, CLIENTS_PYTHON an interpreter with its packages and PyQt5
test-clients: setup ; $(or $(CLIENTS_PYTHON),$(PY)) -m pytest -q -m clients tests/clients
# in a real page (Debian's chromium, playwright): COMFYUI_PATH names a host, PAGE_PYTHON an interpreter with its packages
# and playwright, PAGE_FRONTEND the static folder of another frontend package
test-page: setup ; $(or $(PAGE_PYTHON),$(PY)) -m pytest -q -m page tests/page
test-slow: setup ; $(PY) -m pytest -q -m slow
