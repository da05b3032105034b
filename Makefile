# Every target makes its own environment in .venv: Python 3.11 or newer and make are all that a machine needs.
SHELL := /bin/bash
VENV  := .venv
BIN   := $(VENV)/bin
# The results of a benchmark on this data: make bench DATA=path [PEERS=zvec,zvec-int8,qdrant-edge,chroma,lancedb]
DATA  ?=
PEERS ?=
ARGS  ?=
KILLS ?= 5000
MINUTES ?= 30
COUNT ?= 200
OFFSETS ?= 48
STATES ?= 2000000
PAGES ?= 200000
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help demo test check format lint types rules crash soak mutation coverage faults malformed warmup bench bench-hnsw bench-ivf golden bench-filters clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1mmake %-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/package ## Write, search and reopen a database of real text, in under a minute
	@$(BIN)/python -m vecdb demo $(DEMO)

test: $(VENV)/develop ## Run the test suite on two processes (TESTS=path for a part)
	$(BIN)/python -m pytest -n 2 --dist worksteal $(TESTS)

check: format lint types rules test ## Everything that a change must pass

format: $(VENV)/develop ## Rewrite the sources in the one format
	$(BIN)/ruff format .

lint: $(VENV)/develop ## Check the format and the lint rules, change nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/develop ## Check the types, strictly
	$(BIN)/mypy vecdb

rules: $(VENV)/develop ## Check imports, sizes, exports, kernels and documents
	$(BIN)/python -m pytest tests/rules

crash: $(VENV)/develop ## Crash states (STATES=2000000, PAGES=200000), then kills (KILLS=5000); hours, resumable
	$(BIN)/python -m tests.simdisk.run crash --states $(STATES) --pages $(PAGES)
	$(BIN)/python -m tests.crash.run --kills $(KILLS)

soak: $(VENV)/develop ## Everything at once for half an hour (MINUTES=30): what the process holds must stay as it is
	$(BIN)/python -m tests.crash.soak --minutes $(MINUTES)

mutation: $(VENV)/develop ## Change the log, the catalog and recovery in COUNT=200 places, one at a time: tests must notice
	$(BIN)/python -m tests.mutation --count $(COUNT)

coverage: $(VENV)/develop ## Which lines and branches the tests reach, of all but the kernels, which are compiled
	$(BIN)/python -m tests.reached

faults: $(VENV)/develop ## Fail every call of the disk in every way; the list of sites goes to tests/RESULTS.md
	$(BIN)/python -m tests.simdisk.run faults

malformed: $(VENV)/develop ## Damage every file in every way (OFFSETS=48 places each), counts into tests/RESULTS.md
	$(BIN)/python -m tests.malformed.grid --offsets $(OFFSETS)

warmup: $(VENV)/package ## Compile the kernels ahead of time
	@$(BIN)/python -m vecdb warmup

bench: $(VENV)/package ## Measure on a data set (DATA=path), beside others (PEERS=zvec,zvec-int8,qdrant-edge,chroma,lancedb)
	@test -n "$(DATA)" || { echo "make bench DATA=path/to/data [PEERS=zvec,zvec-int8,qdrant-edge,chroma,lancedb]" >&2; exit 2; }
	$(BIN)/python -m benchmarks.collection $(DATA) $(if $(PEERS),--peers $(PEERS))

bench-hnsw: $(VENV)/package ## Measure the graph index (DATA=path, ARGS="--photos FILE --build"; PEERS=hnswlib,faiss,usearch)
	@test -n "$(DATA)" || { echo "make bench-hnsw DATA=path/to/data [PEERS=hnswlib,faiss,usearch] [ARGS=...]" >&2; exit 2; }
	$(BIN)/python -m benchmarks.hnsw $(DATA) $(if $(PEERS),--peers $(PEERS)) $(ARGS)

golden: $(VENV)/develop ## Write the golden databases of a format that is not released yet anew
	$(BIN)/python -m tests.golden.make

bench-filters: $(VENV)/package ## Measure filtered search, every arm (DATA=path, PEERS=zvec,qdrant-edge, ARGS="--sweep 200")
	@test -n "$(DATA)" || { echo "make bench-filters DATA=path/to/data [PEERS=zvec,qdrant-edge] [ARGS=...]" >&2; exit 2; }
	$(BIN)/python -m benchmarks.filters $(DATA) $(if $(PEERS),--peers $(PEERS)) $(ARGS)

bench-ivf: $(VENV)/package ## Measure inverted lists beside FAISS (DATA=path, ARGS="--photos FILE --wide DIR")
	@test -n "$(DATA)" || { echo "make bench-ivf DATA=path/to/data [ARGS=...]" >&2; exit 2; }
	$(BIN)/python -m benchmarks.ivf $(DATA) $(ARGS)

clean: ## Remove the environments, caches and build products
	rm -rf $(VENV) .venv-peers build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp file per environment: remade only when pyproject.toml is newer. pip 25.1 is the first that knows --group.
$(VENV)/package: pyproject.toml
	@python=$$(.ci/find-python) && echo "Making the environment in $(VENV) with $$python" && $$python -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade "pip>=25.1"
	@echo "Installing vecdb and what it needs"
	@$(BIN)/python -m pip install -qq --editable .
	@touch $@

$(VENV)/develop: $(VENV)/package
	@echo "Installing the tools for development"
	@$(BIN)/python -m pip install -qq --group dev
	@touch $@
