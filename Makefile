# Two commands do everything on a machine with Python 3.11 and make: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
FRAMEWORK_PIP = $(@D)/bin/python -m pip install --quiet --disable-pip-version-check

# The old frameworks that serve as oracles ask for versions that nobody installs today;
# what they really need is in the `test` extra.
ORACLES := pycls timm torchvision classy_vision fairscale fvcore iopath portalocker tabulate \
    scipy simplejson omegaconf antlr4-python3-runtime setuptools termcolor pytorchcv \
    mmpretrain mmengine mmcv-lite mat4py addict yapf platformdirs opencv-python-headless \
    importlib-metadata zipp model-index ordered-set markdown einops \
    scikit-image

# ExecuTorch asks for Core ML and scikit-learn, which XNNPACK has no use for; tabulate is above.
EXECUTORCH := executorch torchao ruamel.yaml

# What converts our TorchScript further, JAX and Core AI; half a gigabyte for a few slow tests.
MOBILE := coremltools cattrs pyaml attrs pnnx jax jaxlib opt_einsum \
    coreai-core coreai-torch yuvio psutil StrEnum

DEMO := checkpoints/fashion_mnist

FUZZ_MINUTES ?= 120

# What covers converters/checkpoint; the rest of the tests is about other things.
READER_TESTS := tests/converters/checkpoint tests/fuzzing tests/hostile

# What the page in examples/web runs networks with: files of packages of the npm registry.
WEB := examples/web/onnxruntime-web
WEB_VERSION := 1.30.0
WEB_SHA256 := d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71
WEB_FILES := ort.wasm.min.mjs ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm \
	ort.webgpu.min.mjs ort-wasm-simd-threaded.asyncify.mjs ort-wasm-simd-threaded.asyncify.wasm
LITERT := examples/web/litert
LITERT_VERSION := 2.5.3
LITERT_SHA256 := a97660833e9e7e1063c95e12016718881240b14f7438728a2f62785e912d30fd
LITERT_UTILS_SHA256 := ce2a1f8379c067be49e59752e5a7f40db6be09f6e497f0f11e59f17b515366a7
LITERT_FILES := litert_wasm_internal litert_wasm_compat_internal

.PHONY: help demo test test-all test-frameworks notebooks coverage lint format types audit mutation false-alarms hostile fuzz faults load benchmarks web dist site clean

help:
	@echo "make demo        convert the bundled checkpoint and classify with every format"
	@echo "make test        the tests (minutes)"
	@echo "make test-all    the tests and the slow sweeps over all published networks"
	@echo "make test-frameworks  what frameworks in environments of their own save and load"
	@echo "make notebooks   run the notebooks of examples/ and the page on fine-tuning"
	@echo "make coverage    lines and branches of the reader of checkpoints that its tests reach"
	@echo "make lint types  ruff and mypy, as CI runs them"
	@echo "make audit       what the package index knows against the pinned versions"
	@echo "make mutation    plant 2,000 faults in artefacts and count those the verdict finds"
	@echo "make false-alarms  judge right artefacts of 2,000 random networks; goes on where it was"
	@echo "make hostile     the 67 classes of hostile and broken files; writes docs/hostile-files.md"
	@echo "make fuzz        two hours (FUZZ_MINUTES=120) of mutated inputs for all that reads files"
	@echo "make faults      let system calls go wrong in every operation; writes docs/faults.md"
	@echo "make load        1,000 checkpoints in one batch, on processes and on Ray"
	@echo "make web         fetch what the page in examples/web needs"
	@echo "make dist        wheel and sdist, checked as the package index would"
	@echo "make site        README and docs as a site, in build/site; fails on a link that leads nowhere"
	@echo "make benchmarks  measure against optimum and torch.onnx; writes docs/benchmarks.md"

demo: $(VENV)/.installed
	$(BIN)/convert-pycls $(DEMO)/RegNetY-FashionMNIST.pyth build/demo \
	    --labels $(DEMO)/labels.json --force
	$(BIN)/python $(DEMO)/demo.py build/demo

test: $(VENV)/.installed-test
	$(PYTEST)

test-all: test $(VENV)-release/.installed $(VENV)/.installed-fuzz $(VENV)/.installed-mobile $(VENV)-onnxruntime-1.17/.installed
	$(PYTEST) -m slow
	$(BIN)/python -m fuzz --minutes 2

# Frameworks that ask for other versions than ours; see tests/frameworks/__init__.py.
FRAMEWORKS := mlx transformers4 mind paddle keras onnx optimum tasks

test-frameworks: $(VENV)/.installed-test $(FRAMEWORKS:%=$(VENV)-%/.installed)
	$(BIN)/python -m pytest -m "slow or not slow" tests/frameworks

$(VENV)-%/bin/python:
	$(PYTHON) -m venv $(VENV)-$*

# mlx-image pins versions of what it does not need to build and load a network.
$(VENV)-mlx/.installed: | $(VENV)-mlx/bin/python
	$(FRAMEWORK_PIP) "mlx[cpu]==0.32.4" numpy==2.4.6 huggingface_hub==2.4.0 safetensors==0.8.0
	$(FRAMEWORK_PIP) --no-deps mlx-image==0.1.10
	@touch $@

$(VENV)-transformers4/.installed: | $(VENV)-transformers4/bin/python
	$(FRAMEWORK_PIP) tensorflow-cpu==2.15.1 transformers==4.45.2 flax==0.8.5 jax==0.4.30 jaxlib==0.4.30 "numpy<2"
	@touch $@

$(VENV)-mind/.installed: | $(VENV)-mind/bin/python
	$(FRAMEWORK_PIP) mindspore==2.10.0 mindcv==0.3.0 numpy==1.26.4
	@touch $@

# paddleclas asks for what trains and serves networks; its file of RegNets is all that is used.
$(VENV)-paddle/.installed: | $(VENV)-paddle/bin/python
	$(FRAMEWORK_PIP) paddlepaddle==3.3.1 numpy==2.4.6 setuptools
	$(FRAMEWORK_PIP) --no-deps paddleclas==2.6.0
	@touch $@

# kimm and kecam pin versions of what they do not need to build and load a network.
$(VENV)-keras/.installed: | $(VENV)-keras/bin/python
	$(FRAMEWORK_PIP) tensorflow-cpu==2.21.0 keras==3.15.1 tf_keras==2.21.0 h5py==3.14.0 pillow==13.0.0 tqdm==4.70.1
	$(FRAMEWORK_PIP) --no-deps kimm==0.2.5 kecam==1.4.3
	@touch $@

# What torch's newer exporter of ONNX needs beside the project's own environment.
$(VENV)-onnx/.installed: | $(VENV)-onnx/bin/python
	$(FRAMEWORK_PIP) --no-deps onnxscript==0.7.2 onnx-ir==1.1.0
	@touch $@

$(VENV)-optimum/.installed: | $(VENV)-optimum/bin/python
	$(FRAMEWORK_PIP) torch==2.13.0 transformers==4.57.6 "optimum-onnx[onnxruntime]==0.1.0"
	@touch $@

# What phones classify images with. tflite-support is of 2023 and wants Debian's libusb-1.0-0; for
# Python 3.12 and later there is none. Both ask for packages that draw and play sound.
$(VENV)-tasks/.installed: | $(VENV)-tasks/bin/python
	$(FRAMEWORK_PIP) --no-deps tflite-support==0.4.4 mediapipe==1.2.3 protobuf==3.20.3
	$(FRAMEWORK_PIP) absl-py==2.5.1 certifi flatbuffers==25.12.19 numpy==2.4.6 pybind11
	@touch $@

notebooks: $(VENV)/.installed-test
	$(PYTEST) -m "slow or not slow" tests/test_notebooks.py

coverage: $(VENV)/.installed-test
	$(BIN)/python -m coverage run --branch --source converters/checkpoint -m pytest -q $(READER_TESTS)
	$(BIN)/python -m coverage report --show-missing --fail-under 95

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.installed-test
	$(BIN)/mypy
	for system in darwin win32; do \
	    $(BIN)/mypy --platform $$system --cache-dir .mypy_cache/$$system regnet converters || exit; \
	done

# Offline, or where the index of pip serves files alone, it says so and passes.
audit: $(VENV)/bin/python
	$(BIN)/python -m tests.advisories constraints.txt

fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python -m fuzz --minutes $(FUZZ_MINUTES)
	$(PYTEST) -m slow tests/fuzzing

$(VENV)/.installed-fuzz: $(VENV)/.installed-test
	$(PIP) --editable ".[fuzz]"
	@touch $@

mutation: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.mutation

false-alarms: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.false_alarms

benchmarks: $(VENV)/.installed-benchmarks
	$(BIN)/python -m benchmarks.export_and_convert
	$(BIN)/python -m benchmarks.mobile_exports
	$(BIN)/python -m benchmarks.verify
	$(BIN)/python -m benchmarks.locate
	$(BIN)/python -m benchmarks.loading
	$(BIN)/python -m benchmarks.eager
	$(BIN)/python -m benchmarks.runtimes
	$(BIN)/python -m benchmarks.tuned
	$(BIN)/python -m benchmarks.regrouped
	$(BIN)/python -m benchmarks.fashion_mnist

# The scanners have a place of their own: what they ask for is nothing to the project.
hostile: $(VENV)/.installed-test $(VENV)-scanners/.installed
	$(BIN)/python -m tests.hostile.table --scanners $(VENV)-scanners/bin/python

$(VENV)-scanners/.installed:
	$(PYTHON) -m venv $(VENV)-scanners
	$(VENV)-scanners/bin/python -m pip install --quiet --disable-pip-version-check \
	    picklescan==1.0.5 fickling==0.1.12 typing_extensions
	@touch $@

# The last that knows no format above 9; it wants an older numpy and Python up to 3.12.
$(VENV)-onnxruntime-1.17/.installed:
	$(PYTHON) -m venv $(VENV)-onnxruntime-1.17
	$(VENV)-onnxruntime-1.17/bin/python -m pip install --quiet --disable-pip-version-check \
	    onnxruntime==1.17.3 numpy==1.26.4
	@touch $@

faults: $(VENV)/.installed-test
	$(BIN)/python -m tests.faults.table --write

load: $(VENV)/.installed-load
	$(BIN)/python -m pytest -m slow tests/converters/jobs/batch

site: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) --editable ".[docs]"
	@touch $@

web: $(WEB)/.webgpu-$(WEB_VERSION) $(LITERT)/.version-$(LITERT_VERSION)

$(WEB)/.webgpu-$(WEB_VERSION):
	rm -rf $(WEB) && mkdir $(WEB)
	cd $(WEB) && npm pack --silent onnxruntime-web@$(WEB_VERSION)
	cd $(WEB) && echo "$(WEB_SHA256)  onnxruntime-web-$(WEB_VERSION).tgz" | sha256sum --check --quiet
	cd $(WEB) && tar xzf *.tgz --strip-components 2 $(WEB_FILES:%=package/dist/%)
	rm $(WEB)/*.tgz
	@touch $@

dist: $(VENV)-release/.installed
	rm -rf dist
	$(VENV)-release/bin/python -m build --outdir dist .
	$(VENV)-release/bin/python -m twine check --strict dist/*

$(VENV)-release/.installed:
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install --quiet --disable-pip-version-check \
	    build==1.6.1 twine==7.0.0 check-jsonschema==0.39.0 pre-commit==4.7.0
	@touch $@

# LiteRT's module imports its other package by name, which no browser knows without a build step.
$(LITERT)/.version-$(LITERT_VERSION):
	rm -rf $(LITERT) && mkdir $(LITERT)
	cd $(LITERT) && npm pack --silent @litertjs/core@$(LITERT_VERSION) @litertjs/wasm-utils@$(LITERT_VERSION)
	cd $(LITERT) && echo "$(LITERT_SHA256)  litertjs-core-$(LITERT_VERSION).tgz" | sha256sum --check --quiet
	cd $(LITERT) && echo "$(LITERT_UTILS_SHA256)  litertjs-wasm-utils-$(LITERT_VERSION).tgz" | sha256sum --check --quiet
	cd $(LITERT) && tar xzf litertjs-wasm-utils-*.tgz --strip-components 2 package/dist/index.js
	cd $(LITERT) && sed '/sourceMappingURL/d' index.js >wasm-utils.js
	cd $(LITERT) && tar xzf litertjs-core-*.tgz --strip-components 2 package/dist/index.js \
		$(LITERT_FILES:%=package/wasm/%.js) $(LITERT_FILES:%=package/wasm/%.wasm)
	cd $(LITERT) && sed 's|"@litertjs/wasm-utils"|"./wasm-utils.js"|; /sourceMappingURL/d' index.js >litert.js
	rm $(LITERT)/*.tgz $(LITERT)/index.js
	@touch $@

clean:
	rm -rf build dist $(WEB) $(LITERT) .venv .venv-scanners .venv-release .venv-onnxruntime-1.17 $(FRAMEWORKS:%=$(VENV)-%) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-benchmarks: $(VENV)/.installed-test
	$(PIP) --editable ".[benchmarks]"
	@touch $@

$(VENV)/.installed-mobile: $(VENV)/.installed-test
	$(PIP) --no-deps $(MOBILE)
	@touch $@

$(VENV)/.installed-load: $(VENV)/.installed-test
	$(PIP) --editable ".[ray]"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable ".[test,lint]"
	$(PIP) --no-deps $(ORACLES) $(EXECUTORCH)
	@# vissl's wheel brings a classy_vision, a fairscale and a `tests` of its own: keep them out.
	rm -rf $(VENV)/vissl-wheel $(VENV)/vissl
	$(PIP) --no-deps --target $(VENV)/vissl-wheel vissl
	mkdir $(VENV)/vissl && mv $(VENV)/vissl-wheel/vissl $(VENV)/vissl-wheel/configs $(VENV)/vissl/
	rm -rf $(VENV)/vissl-wheel
	echo "$(abspath $(VENV))/vissl" > \
	    "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vissl.pth"
	@touch $@
