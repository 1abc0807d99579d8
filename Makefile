# make report | test | lab | full | notebooks | bench | faults | lint    (Python 3.11 to 3.13; PYTHON=... chooses one)
PYTHON ?= python3
# A smaller CPU-only torch: PIP_ARGS="--extra-index-url URL", with the CPU address that the install page of
# pytorch.org prints, in one `make install` before anything else
PIP_ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python -m

.PHONY: install report test lab full notebooks bench faults lint

install: $(VENV)/installed

$(VENV)/installed: requirements.txt requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install -q --disable-pip-version-check $(PIP_ARGS) -c requirements.lock -r requirements.txt
	$(RUN) pip install -q --disable-pip-version-check --no-deps -e .
	touch $@

# trains everything, briefly, on the real data, executes the notebooks and prints the report's path, under runs/quick/
report: install
	$(RUN) smai_lib fetch
	$(RUN) smai_lib report --profile quick

# a process a core, each with one thread, since threads of several processes wait for each other
test: export OMP_NUM_THREADS := 1
test: PYTEST := pytest -n logical --maxprocesses 4 --dist loadfile
test: lint
	$(RUN) smai_lib fetch
	$(RUN) $(PYTEST)
	$(RUN) $(PYTEST) --nbval --nbval-current-env --nbval-cell-timeout 300 notebooks

lab: install
	$(VENV)/bin/jupyter lab notebooks

# the reported study: hours, and it continues where it was stopped; writes report/ and figures
full: install
	$(RUN) smai_lib fetch
	$(RUN) smai_lib report --profile full
	$(RUN) smai_lib report

# execute the notebooks in place, as the repository stores them and nbval compares them
notebooks: install
	$(RUN) smai_lib notebooks

bench: install
	$(VENV)/bin/python benchmarks/training.py

# a soak: processes killed at sixty random moments, every file damaged in three ways; prints and writes runs/faults.csv
faults: install
	$(VENV)/bin/python benchmarks/faults.py

lint: install
	$(RUN) ruff check .
