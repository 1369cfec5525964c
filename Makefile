# `make demo` and `make test` make the environment (.venv) if it is missing, then do their job.
# A fresh machine needs Python >= 3.11 with venv, gcc, make and a package registry.
PYTHON ?= python3
# Processes of the tests, each with one thread.
WORKERS ?= auto
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-browser lint bench bench-solver bench-train bench-battery bench-threads bench-gpu slow clean help

help:            ## what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/'

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# fastMRI without its declared requirements (Lightning, torchvision), plus what its data modules import.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt requests pandas runstats tqdm pyyaml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt fastmri
	touch $@

demo: $(STAMP)   ## reconstruct a real MR slice from 8-fold undersampled k-space; report in demo-output/
	$(BIN)/mrisps demo --output demo-output

lint: $(STAMP)   ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(STAMP) lint   ## lint, types and all quick tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-browser: $(STAMP)   ## the pages in a real browser (Chromium with its driver): a minute
	$(BIN)/python -m pytest -m browser tests/reports

slow: $(STAMP)   ## what only full slices, training and killed processes can show: minutes
	$(BIN)/python -m pytest -m slow -n $(WORKERS) --dist worksteal

bench: $(STAMP)  ## fast solver against the paper solver, side by side: about ten minutes
	$(BIN)/python benchmarks/solver_speed.py --skip-factored

DATA ?= data/paper_mri_val
CHECKPOINTS ?= data/paper_checkpoints
ROOT ?= data
bench-solver: $(STAMP)  ## time to the right image on the paper's slices (DATA, CHECKPOINTS), then beside BART and BM3D (ROOT, BATTERY): ten minutes
	$(BIN)/python benchmarks/solver_bench.py --data $(DATA) --checkpoints $(CHECKPOINTS)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/targets.py --data $(ROOT) --battery $(BATTERY)

WEIGHTS ?= train-output/denoise_sigma25_ncpr_first.safetensors
bench-train: $(STAMP)  ## a training step against backpropagation and the authors' recipe (DATA=image folder, WEIGHTS=...): five minutes
	$(BIN)/python benchmarks/train_speed.py --data $(DATA) --weights $(WEIGHTS)

BATTERY ?= battery
bench-battery: $(STAMP)  ## many simulated acquisitions against SigPy and BART (BATTERY=folder of cases): hours; goes on where it stopped
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/battery.py run $(BATTERY)
	$(BIN)/python benchmarks/battery.py table $(BATTERY) --figure $(BATTERY)/battery.png

bench-threads: $(STAMP)  ## a multi-coil slice on an idle and on a busy machine, by how threads wait: five minutes
	$(BIN)/python benchmarks/threads.py

GPU_OPTIONS ?=
bench-gpu: $(STAMP)  ## solver, calibration, slices together and a training step on a CUDA device, else on the CPU (GPU_OPTIONS='--size 256')
	$(BIN)/python benchmarks/gpu.py $(GPU_OPTIONS)

clean:           ## remove the environment and what the demo wrote
	rm -rf $(VENV) demo-output
