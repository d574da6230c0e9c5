PY := .venv/bin/python
.PHONY: setup demo train-demo test test-slow lint

setup: .venv/ready
.venv/ready: requirements-dev.txt
	python3 -m venv .venv
	$(PY) -m pip install -q -r requirements-dev.txt
	$(PY) -m pip install -q --no-deps nodetool==0.5.3 ip-adapter==0.1.0 insightface==2.1
	touch $@
demo: setup ; $(PY) demo/run.py
train-demo: setup ; $(PY) -m demo.train --stages vae base clip adapter control
lint: setup ; $(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m pyright --pythonpath $(PY)
test: lint ; $(PY) -m pytest -q
test-slow: setup ; $(PY) -m pytest -q -m slow
