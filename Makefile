# make report | test | test-all | lab | notebooks | full | bench | faults | lint
# Python 3.11 or later; PYTHON=... chooses one. Without make, `smai report` and `smai test` do the same.
PYTHON ?= python3
# PIP_ARGS="--extra-index-url URL" installs torch without CUDA; the install page of pytorch.org has the URL
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c requirements.lock

.PHONY: install report test test-slow test-all lab notebooks full bench faults lint

install: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	@echo "Installing the library and what it needs into $(VENV): 5 minutes, up to 6 GB of disk."
	@command -v nvidia-smi > /dev/null || echo 'No NVIDIA GPU was found. On Linux, torch without' \
	    'CUDA takes 1 GB: stop this with Ctrl-C, then `make install PIP_ARGS="--extra-index-url' \
	    'URL"`, with the URL for CPU from the install page of pytorch.org.'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(VENV)/installed-%: $(VENV)/installed
	@echo "Installing what \`make $*\` needs, too: less than a minute."
	$(PIP) -e ".[$*]"
	@touch $@

# trains everything briefly on the real data, runs the notebooks, and writes runs/quick/report.html
report: install
	$(BIN)/smai report --profile quick

test: $(VENV)/installed-test
	$(BIN)/smai test

# the slow tests: those in a browser need JupyterLab and Chromium, those of Ray need Ray
test-slow: export OMP_NUM_THREADS := 1
test-slow: $(VENV)/installed-test $(VENV)/installed-lab
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=10 -m "slow or ray or browser or gpu" tests

test-all: test test-slow

lab: $(VENV)/installed-lab
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks

# runs the notebooks in place, as the repository stores them
notebooks: install
	$(BIN)/smai notebooks

# trains the reported studies, which takes hours and continues where it was stopped; then draws the
# figures of the new results, which the reports show
full: install
	$(BIN)/smai run --profile full
	$(BIN)/smai notebooks
	$(BIN)/smai report --profile full
	$(BIN)/smai report

# images per second, beside a textbook training loop
bench: install
	$(BIN)/python benchmarks/training.py

# kills processes at sixty random moments and damages every file in three ways
faults: $(VENV)/installed-test
	$(BIN)/python benchmarks/faults.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/lint-imports
