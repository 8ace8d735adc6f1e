# Everything a user or a contributor runs.  `make demo` and `make test` work on a fresh machine.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 2

ACTIVATIONS := relu silu gelu parametric-softplus
SEEDS := 0 1 2
ZOO := $(foreach s,$(SEEDS),$(foreach a,$(ACTIVATIONS),fmnist-sat:$(a):$(s))) \
       $(foreach s,$(SEEDS),$(foreach a,relu silu,fmnist-pgd2:$(a):$(s))) fmnist-standard:relu:0
JOBS ?= 2

.PHONY: help demo test test-all lint types zoo records leaderboard check-leaderboard clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 20

$(BIN)/satbench: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all]'
	@touch $@

demo: $(BIN)/satbench  ## Install, evaluate the shipped models, print and write the leaderboard
	$(BIN)/satbench demo

test: $(BIN)/satbench  ## Install, run all everyday tests
	$(BIN)/python -m pytest

test-all: $(BIN)/satbench  ## Run every test, the slow ones too
	$(BIN)/python -m pytest -m "not gpu"

lint: $(BIN)/satbench  ## Check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(BIN)/satbench  ## Check types, strictly, of the package as it is installed
	rm -rf build/types && $(BIN)/pip install --quiet --no-deps --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python -p satbench

zoo: $(BIN)/satbench  ## Train every shipped model again (about an hour on two cores)
	@echo $(ZOO) | tr ' ' '\n' | xargs -P $(JOBS) -I{} sh -c 'set -- $$(echo {} | tr ":" " "); \
	  OMP_NUM_THREADS=1 $(BIN)/satbench train --recipe $$1 --activation $$2 --seed $$3 --threads 1 --out runs'

records: $(BIN)/satbench  ## Evaluate every shipped model again: PGD-50, then AutoAttack, 500 images (about an hour and a half on two cores)
	@ls model_zoo/cards | sed 's/\.json$$//' | xargs -P $(JOBS) -I{} env OMP_NUM_THREADS=1 \
	  $(BIN)/satbench eval --model {} --attack pgd-50 --attack autoattack --n-examples 500 --out leaderboard/records

leaderboard: $(BIN)/satbench  ## Write the leaderboard again from the records
	$(BIN)/satbench leaderboard build --readme README.md

check-leaderboard: $(BIN)/satbench  ## Fail when the committed leaderboard is out of date
	$(BIN)/satbench leaderboard build --check --readme README.md

clean:  ## Remove what the targets above made, the environment too
	rm -rf $(VENV) build demo *.egg-info
