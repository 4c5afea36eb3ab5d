# Everything runs in .venv, made from python3 (>= 3.11) alone.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench lint wheel iotests clean

demo: .venv/run.stamp
	@$(BIN)/studykvm demo -o build/demo

test: .venv/test.stamp
	$(BIN)/python -m pytest

bench: .venv/bench.stamp
	$(BIN)/python -m benchmarks

lint: .venv/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: .venv/run.stamp
	$(BIN)/pip wheel -q --no-deps -w dist .

# make iotests SRC=path/to/qemu-7.2.0
iotests: .venv/run.stamp
	@test -d "$(SRC)/tests/qemu-iotests" || \
	  { echo "make iotests SRC=DIR: DIR is a QEMU 7.2 source tree (on Debian: apt-get source qemu)" >&2; exit 2; }
	$(BIN)/python -m tools.iotests "$(SRC)"

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "studykvm needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -m venv .venv || \
	  { rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }

.venv/run.stamp: .venv/bin/pip pyproject.toml
	@echo "Installing studykvm into .venv (once) ..."
	@$(BIN)/pip install -q --disable-pip-version-check -e .
	@touch $@

.venv/%.stamp: .venv/run.stamp
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[$*]'
	@touch $@

clean:
	rm -rf build dist .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache
