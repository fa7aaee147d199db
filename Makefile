# SPDX-License-Identifier: Apache-2.0
# Everything here runs from a clean clone: the first target makes .venv from requirements.lock.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN     = .venv/bin
JOBS   ?= 2
export PROMPT

.DEFAULT_GOAL := help
.PHONY: help run digits test verify bench lint formal mutate faults tokens clean

help:     ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile | expand -t 16

run: .venv/stamp        ## a language model completes PROMPT="..." on the simulated tile, every bit compared, with a report
	$(BIN)/python scripts/run.py --backend rtl --tokens 24 $(if $(PROMPT),--prompt "$$PROMPT")

digits: .venv/stamp     ## handwritten digits on the simulated matmul engine, with a report
	$(BIN)/python scripts/digits.py

test: lint              ## lint, import layers and all tests
	$(BIN)/python -m pytest -q -n $(JOBS)

verify: lint            ## the deep grids: every test with DEEP=1
	DEEP=1 $(BIN)/python -m pytest -q -n $(JOBS)

bench: .venv/stamp      ## measure every figure into build/figures.json
	$(BIN)/python scripts/bench.py $(if $(TABLE),--table $(TABLE))

lint: .venv/stamp       ## ruff, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/lint-imports

formal: .venv/stamp     ## prove the control logic
	$(BIN)/python scripts/formal.py

mutate: .venv/stamp     ## five thousand mutants of the control logic, found or explained
	$(BIN)/python scripts/mutate.py

faults: .venv/stamp     ## five hundred broken programs on a simulated tile: each ends, and the next one runs
	DEEP=1 $(BIN)/python -m pytest -q tests/test_faults.py

tokens: .venv/stamp     ## write many tokens on the simulated tile, in all formats, every logit compared: hours
	$(BIN)/python scripts/tokens.py

clean:                  ## remove build/ and .venv
	rm -rf build .venv

.venv/stamp: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Poblano needs Python 3.11 or later; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "Poblano needs Python's venv (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@for tool in g++ perl; do command -v $$tool >/dev/null \
	  || { echo "Poblano needs $$tool to build simulations (Debian, Ubuntu: apt install g++ make perl)" >&2; exit 1; }; done
	"$(PYTHON)" -m venv .venv
	$(BIN)/pip install -q -r requirements.lock
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@
