# `make plan` plans with nothing but the base dependencies; `make test` adds torch and runs everything.
# Exact versions come from constraints.txt; each stamp in .venv says which of the sets is installed.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help plan ui test lint format clean

help:
	@echo "make plan    install the planner alone and plan a 70B model on 64 GPUs"
	@echo "make ui      install the planner with its dashboard, and open that in a browser"
	@echo "make test    install everything and run the whole test suite"
	@echo "make lint    ruff check, ruff format --check, mypy --strict"
	@echo "make format  let ruff rewrite what it can"
	@echo "make clean   remove the virtual environment and the caches"

plan: .venv/.base
	$(BIN)/plan --model llama-70b --gpus 64

ui: .venv/.ui
	$(BIN)/plan ui

test: .venv/.dev
	$(BIN)/python -m pytest

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.base: pyproject.toml constraints.txt | $(BIN)/python
	PIP_CONSTRAINT=constraints.txt $(PIP) --editable .
	touch $@

.venv/.ui: .venv/.base
	PIP_CONSTRAINT=constraints.txt $(PIP) --editable '.[ui]'
	touch $@

# torch goes first and by itself, so that pip takes the build that this machine's index offers.
.venv/.dev: .venv/.base
	$(PIP) torch
	PIP_CONSTRAINT=constraints.txt $(PIP) --editable '.[dev]'
	touch $@
