# `make repro` and `make test` work on a machine that has only Python, git and make.
PYTHON ?= python3

.PHONY: repro gate verify test fuzz faults check lock bench clean install

repro: install  ## run the stages whose inputs have changed
	. .venv/bin/activate && dvc repro
	@echo 'To go on: . .venv/bin/activate, then dvc metrics show; data/report.html shows the run.'

gate: install  ## have the metrics regressed since the remote's main branch?
	. .venv/bin/activate && python -m stages.gate

verify: install  ## does this machine reproduce the committed results, in twenty environments?
	. .venv/bin/activate && python -m stages.verify

test: install  ## all tests; for a quick loop: pytest -m 'not slow and not mnist'
	. .venv/bin/activate && pytest --numprocesses logical --maxprocesses 8 --dist worksteal

fuzz: install  ## an hour of broken files for every reader; FUZZ_SECONDS=60 make fuzz for a minute
	. .venv/bin/activate && FUZZ_SECONDS=$${FUZZ_SECONDS:-3600} pytest tests/fuzz --capture=no --timeout=0

faults: install  ## every file operation of every command fails or is the last; `make test` tries some
	. .venv/bin/activate && FAULTS=all pytest tests/faults --numprocesses logical --maxprocesses 8 -rP

check: install  ## lint, format, types and workflows
	. .venv/bin/activate && ruff check && ruff format --check && mypy && \
		check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

bench: install  ## compare with the tutorial's loop and scikit-learn, in one run
	. .venv/bin/activate && python -m benchmarks

bench-scale: install  ## seconds and memory of each stage on 10,000 and 100,000 pictures in shards
	. .venv/bin/activate && python -m benchmarks.scale

lock: install  ## pin versions and hashes for all platforms; keep the pins that pyproject.toml still allows
	. .venv/bin/activate && UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal \
		--python-version 3.11 --generate-hashes --extra pipeline --extra s3 --extra dev \
		--output-file requirements.lock pyproject.toml

install:
	@cmp -s requirements.lock .venv/installed.lock || { \
		command -v $(PYTHON) > /dev/null || \
			{ echo "error: no $(PYTHON): install Python 3.11 or newer, or make PYTHON=/path/to/python" >&2; exit 2; }; \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
			{ echo "error: $$($(PYTHON) --version) is too old: 3.11 or newer is needed; make PYTHON=/path/to/python" >&2; exit 2; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
			{ echo "error: $(PYTHON) has no venv: install it (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }; \
		$(PYTHON) -m venv --clear .venv && \
		.venv/bin/python -m pip install --disable-pip-version-check --require-hashes --no-deps -r requirements.lock && \
		cp requirements.lock .venv/installed.lock; }

clean:  ## remove what tools have left: not data/, nor DVC's cache
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache dvc_plots
	find . -name __pycache__ -prune -exec rm -rf {} +
