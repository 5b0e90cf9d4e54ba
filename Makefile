# make setup   virtual environment with everything, Debian packages where allowed
# make demo    the whole loop once on this machine
# make test    linters and all tests
# make lint    ruff, mypy, import-linter
# make bench   benchmarks (tests/benchmarks), written to deploy/docs/measured.md; some: BENCH="receive cli"
# make soak    minutes of load and kills (tests/soak)
# make lock    resolve the dependencies anew into constraints.txt

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.msnode-ready
# What tests and demo need of Debian 12: an archive, a second DICOM implementation, validators, a database.
PACKAGES := orthanc orthanc-dicomweb dcmtk dicom3tools libpixelmed-java default-jre-headless postgresql
# Another reader of geometry, on the Visualization Toolkit.
PACKAGES += vtk-dicom-tools
# A browser, in which the viewer of deploy/viewer runs, and letters for names.
PACKAGES += chromium fonts-dejavu-core fonts-droid-fallback
# Debian's own Python comes without ensurepip, which venv needs.
PACKAGES += $(shell $(PYTHON) -c 'import ensurepip' 2>/dev/null || echo python3-venv)

.PHONY: setup packages viewer demo test lint bench soak lock clean

setup: packages viewer $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

packages:
	@deploy/debian-packages $(PACKAGES)

# The viewer in which tests look at results. Nothing else is fetched, and never by the node.
viewer:
	@$(PYTHON) deploy/viewer/fetch_ohif.py .cache/ohif || [ "$$CI" != true ]

demo: setup
	$(BIN)/msnode demo $(DEMO)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: setup lint
	$(BIN)/pytest $(TEST)

bench: setup
	$(BIN)/python -m tests.benchmarks $(BENCH)

SOAK ?= random --minutes 5
soak: setup
	$(BIN)/python -m tests.soak $(SOAK)

lock:
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --all-extras --no-header --no-annotate pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) demo-output bench-output
