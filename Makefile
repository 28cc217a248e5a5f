# Two commands do everything on a machine with Python 3.11 and make: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

# The old frameworks that serve as oracles ask for versions that nobody installs today;
# what they really need is in the `test` extra.
ORACLES := pycls timm torchvision classy_vision fairscale fvcore iopath portalocker tabulate \
    scipy omegaconf antlr4-python3-runtime setuptools termcolor \
    mmpretrain mmengine mmcv-lite addict yapf platformdirs opencv-python-headless \
    importlib-metadata zipp model-index ordered-set markdown einops \
    scikit-image

DEMO := checkpoints/fashion_mnist

.PHONY: help demo test test-all lint format types mutation benchmarks clean

help:
	@echo "make demo        convert the bundled checkpoint and classify with every format"
	@echo "make test        the tests (minutes)"
	@echo "make test-all    the tests and the slow sweeps over all published networks"
	@echo "make lint types  ruff and mypy, as CI runs them"
	@echo "make mutation    plant 2,000 faults in artefacts and count those the verdict finds"
	@echo "make benchmarks  measure against optimum in one run; writes docs/benchmarks.md"

demo: $(VENV)/.installed
	$(BIN)/convert-pycls $(DEMO)/RegNetY-FashionMNIST.pyth build/demo \
	    --labels $(DEMO)/labels.json --force
	$(BIN)/python $(DEMO)/demo.py build/demo

test: $(VENV)/.installed-test
	$(PYTEST)

test-all: $(VENV)/.installed-test
	$(PYTEST) -m "slow or not slow"

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.installed-test
	$(BIN)/mypy

mutation: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.mutation

benchmarks: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.export_and_convert

clean:
	rm -rf build dist .venv .venv-optimum .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable ".[test,lint]"
	$(PIP) --no-deps $(ORACLES)
	@# vissl's wheel brings a classy_vision, a fairscale and a `tests` of its own: keep them out.
	rm -rf $(VENV)/vissl-wheel $(VENV)/vissl
	$(PIP) --no-deps --target $(VENV)/vissl-wheel vissl
	mkdir $(VENV)/vissl && mv $(VENV)/vissl-wheel/vissl $(VENV)/vissl-wheel/configs $(VENV)/vissl/
	rm -rf $(VENV)/vissl-wheel
	echo "$(abspath $(VENV))/vissl" > \
	    "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vissl.pth"
	@touch $@
