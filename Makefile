# `make`: from a clone to a corpus, a report and a fine-tuned, evaluated model. `make test`: everything we promise.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: all install test lint fuzz bench clean

all: install
	dvc repro
	@corpus verdict

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "corpusmill needs Python 3.11 or later; name one with make PYTHON=...")'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	# Pips before 24 fail over two spellings of one extra of lxml.
	.venv/bin/pip install --quiet 'pip>=24'
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	.venv/bin/python -m corpus.report.plots_template .dvc/offline_plots.html
	# A downloaded archive has no .git; dvc must be told.
	test -e .git || .venv/bin/dvc config --local core.no_scm true
	touch $@

test: install lint
	pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

lint: install
	ruff check
	ruff format --check
	mypy

# Bytes that break what parsers and kernels promise, guided by the code they reach; SECONDS for each of the targets.
SECONDS ?= 60
fuzz: install
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	python -m tests.fuzz all --seconds $(SECONDS)

# One job on this and two other toolkits, which it installs beside; BENCH="--quick", or --texts and --pages of your own.
bench: install
	python bench/toolkits.py --install --environments .venv/peers $(BENCH)

clean:
	rm -rf .corpusmill data/*/.*.partial
