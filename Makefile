# Everything a user or a contributor runs.  `make demo` and `make test` work on a fresh machine.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 2

ACTIVATIONS := relu silu gelu parametric-softplus softplus elu celu(alpha=2) smooth-relu mish leaky-relu
SEEDS := 0 1 2
SURROGATES := "fmnist-standard relu" "fmnist-pgd2 relu" "fmnist-pgd2 silu" "fmnist-sat parametric-softplus"
# RECIPE:ARCHITECTURE:ACTIVATION:SEED, and a setting where one is needed (docs/decisions/0008-pssilu.md)
ZOO := $(foreach s,$(SEEDS),$(foreach r,fmnist-sat fmnist-pgd2,$(foreach a,$(ACTIVATIONS),$(r):tiny:$(a):$(s)) \
         $(r):tiny:pssilu:$(s):activation_rate=0.1)) \
       $(foreach a,relu silu parametric-softplus,fmnist-sat:small(width=16,blocks=1):$(a):0 fmnist-standard:tiny:$(a):0) \
       fmnist-pgd7:tiny:relu:0 fmnist-pgd7:tiny:silu:0 fmnist-ibp:tiny:relu:0 fmnist-ibp:tiny:silu:0
CERTIFIED := fmnist-ibp-tiny-relu-s0 fmnist-ibp-tiny-silu-s0
SPREAD := fmnist-sat-tiny-relu-s0 fmnist-sat-tiny-silu-s0 fmnist-pgd2-tiny-relu-s0 fmnist-standard-tiny-relu-s0
MASKS := hard_labels rounding saturated noisy detached probabilities rounded_logits warm faint_noise partly_hard_labels \
         robust_hard_labels robust_rounding robust_saturated robust_noisy robust_detached
STUDIES := gradient-quality activations negative-inputs elu-celu scaling gradient-masking attack-convergence \
           recipe-sensitivity smoothness-0.03 smoothness-0.1 smoothness-longer smoothness-larger
WRITTEN := $(filter $(STUDIES),$(basename $(notdir $(wildcard docs/studies/*.md))))
JOBS ?= 2

.PHONY: help demo docs docs-serve page image test coverage test-all lint types zoo surrogates records strongest certificates reference flags leaderboard studies check-leaderboard check-pages recheck verify bench gpu clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 20

$(BIN)/satbench: pyproject.toml constraints.txt
	@echo "installing into $(VENV): the first time takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all]'
	@touch $@

demo: $(BIN)/satbench  ## Install, attack three shipped models, print a table (under a minute after pip)
	$(BIN)/satbench demo

docs: $(BIN)/satbench  ## Build the documentation site into site/, with the boards; a warning is an error
	$(BIN)/python docs/site/gap_chart.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/satbench leaderboard page --out site/boards

docs-serve: $(BIN)/satbench  ## Serve the documentation site on this machine, to edit it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

page: $(BIN)/satbench  ## Write the boards as a site that opens from disk: page/index.html
	$(BIN)/satbench leaderboard page --out page

image:  ## Build the Docker image, for the CPU
	docker build --tag satbench .

# With bytecode, the processes that tests start need not compile satbench; an empty value allows it.
test coverage check-pages: export PYTHONDONTWRITEBYTECODE :=

test: $(BIN)/satbench  ## Install and run all everyday tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

coverage: $(BIN)/satbench  ## Run all everyday tests and print the lines that they do not cover
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --cov=satbench --cov-report=term:skip-covered

test-all: $(BIN)/satbench  ## Run all tests, including the slow ones
	$(BIN)/python -m pytest -m "not gpu"

check-pages: $(BIN)/satbench  ## Run the commands that the pages show, and compare what they print
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m slow tests/test_documents.py

lint: $(BIN)/satbench  ## Check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(BIN)/satbench  ## Check types (mypy strict) and that every import is found (pyright)
	$(BIN)/mypy satbench
	$(BIN)/basedpyright --pythonpath $(BIN)/python

zoo: $(BIN)/satbench  ## Train every shipped model again (about three hours on two cores)
	@echo '$(ZOO)' | tr ' ' '\n' | grep . | xargs -P $(JOBS) -I{} sh -c 'set -- $$(echo "{}" | tr ":" " "); \
	  OMP_NUM_THREADS=1 $(BIN)/satbench train --recipe "$$1" --arch "$$2" --activation "$$3" --seed "$$4" $${5:+--set "$$5"} \
	  --threads 1 --out runs'

surrogates: $(BIN)/satbench  ## Train the pinned surrogates of the transfer attacks again
	@for pair in $(SURROGATES); do set -- $$pair; OMP_NUM_THREADS=1 $(BIN)/satbench train --recipe $$1 \
	  --activation $$2 --arch 'tiny(width=12)' --seed 100 --threads 1 --out runs || exit 1; done

records: $(BIN)/satbench  ## Evaluate every shipped model under every suite of the board
	OMP_NUM_THREADS=1 $(BIN)/satbench leaderboard fill fashion-mnist-linf-0.1

strongest: $(BIN)/satbench  ## Evaluate every shipped model under the suite strongest, for the column best known (hours)
	for board in fashion-mnist-l2-1 fashion-mnist-linf-0.05 fashion-mnist-linf-0.1; do \
	  OMP_NUM_THREADS=1 $(BIN)/satbench leaderboard fill $$board --suite strongest || exit 1; done

certificates: $(BIN)/satbench  ## Certify the models that were trained by bounds, for both boards of Linf
	@for eps in 0.05 0.1; do OMP_NUM_THREADS=1 $(BIN)/satbench certify $(CERTIFIED) --eps $$eps --method crown-ibp \
	  --n-examples 500 --out leaderboard/fashion-mnist-linf-$$eps/certificates || exit 1; done

reference: $(BIN)/satbench  ## Run pyautoattack, for docs/AGREEMENT.md: other seeds at Linf 0.1, and models of the other boards
	@for seed in 1 2; do for model in $(SPREAD); do OMP_NUM_THREADS=1 $(BIN)/satbench eval --model $$model --attack pgd-50 \
	  --attack autoattack-reference --seed $$seed --n-examples 500 --out leaderboard/fashion-mnist-linf-0.1/reference || exit 1; done; done
	@for one in 'fmnist-pgd2-tiny-relu-s0 l2 1' 'fmnist-pgd2-tiny-silu-s0 l2 1' 'fmnist-pgd2-tiny-relu-s0 linf 0.05'; do set -- $$one; \
	  OMP_NUM_THREADS=1 $(BIN)/satbench eval --model $$1 --norm $$2 --eps $$3 --attack autoattack-reference --n-examples 500 \
	  --out leaderboard/fashion-mnist-$$2-$$3/reference || exit 1; done

# Of the randomised robust_noisy only PGD-50 is kept: a long suite finds images that fool it less than
# once in a hundred answers, and verify refuses them.
flags: $(BIN)/satbench  ## Evaluate the masked models again, the test cases of docs/FLAGS.md
	@for mask in $(MASKS); do for suite in "pgd-50" "fast --attack audit(sample=20,weakest=10) --attack autoattack"; do \
	  [ "$$mask $$suite" = "robust_noisy pgd-50" ] || [ $$mask != robust_noisy ] || continue; \
	  set -f; OMP_NUM_THREADS=1 $(BIN)/satbench eval satbench.model_zoo.masked:$$mask --dataset fashion-mnist --eps 0.1 \
	  --n-examples 100 --attack $$suite --workers 1 --device cpu --out leaderboard/flags || exit 1; done; done

leaderboard: $(BIN)/satbench  ## Write the boards and the models' pages again from the records
	$(BIN)/satbench leaderboard build
	$(BIN)/satbench models cards --out docs/models

studies: $(BIN)/satbench  ## Run every study: train, evaluate, write the pages (many hours on two cores; can be stopped)
	for study in $(STUDIES); do OMP_NUM_THREADS=1 $(BIN)/satbench study $$study --threads 1 || exit 1; done
	$(BIN)/satbench study --overview

check-leaderboard: $(BIN)/satbench  ## Fail if a board, a model's page or a study's page is out of date
	$(BIN)/satbench leaderboard build --check
	$(BIN)/satbench attacks --catalogue --check
	$(BIN)/satbench models cards --check --out docs/models
	for study in $(WRITTEN); do $(BIN)/satbench study $$study --check || exit 1; done
	$(BIN)/satbench study --overview --check

recheck: $(BIN)/satbench  ## Attack samples of survivors of all rows that are not verified yet, and keep the rechecks
	OMP_NUM_THREADS=1 $(BIN)/satbench recheck --board fashion-mnist-linf-0.1 --attack fast --images 60 || true
	$(BIN)/satbench leaderboard build

verify: $(BIN)/satbench  ## Verify every witness of the committed boards
	$(BIN)/satbench verify --all
	$(BIN)/satbench verify leaderboard/flags/*.json $(foreach m,$(MASKS),--trust satbench.model_zoo.masked:$(m))

bench:  ## Compare speed and memory with other packages (see benchmarks/README.md), write docs/benchmarks.md
	for b in pgd autoattack peak memory train noise warm; do OMP_NUM_THREADS=1 .venv-bench/bin/python benchmarks/$$b.py --json benchmarks/results/$$b.json || exit 1; done
	OMP_NUM_THREADS=1 .venv-bench/bin/python benchmarks/train.py --activation parametric-softplus --json benchmarks/results/train-parametric-softplus.json
	OMP_NUM_THREADS=1 .venv-bench/bin/python benchmarks/train.py --activation silu --json benchmarks/results/train-silu.json
	.venv-bench/bin/python benchmarks/report.py

gpu: $(BIN)/satbench  ## On a machine with a GPU: its tests, agreement with the CPU, speed; at most eight minutes
	$(BIN)/python benchmarks/gpu.py --out build/gpu

clean:  ## Remove what the targets above made, including the environment
	rm -rf $(VENV) build demo page site *.egg-info
