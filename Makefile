# `make repro` and `make test` work on a machine that has only Python, git and make.
PYTHON ?= python3
# cpu: PyTorch's build without CUDA, which is a tenth of the size; the choice counts when .venv is created
TORCH ?= cuda

ACTIVATE = . .venv/bin/activate
# As it was typed: a dollar sign in a folder's name begins no variable of make's.
override export FROM := $(value FROM)
PIP = .venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps

.PHONY: help repro gate experiments verify test fuzz faults check lock plots-page screenshots pictures bench bench-scale clean clean-data install

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
		printf '  make %-12s %s\n' "$$target" "$$text"; done

repro: install  ## run the stages whose inputs have changed
	@git -c core.quotePath=off ls-files '*.dvc' | while IFS= read -r file; do \
		[ -e "$${file%.dvc}" ] || { echo "error: $${file%.dvc} is not here, though $$file records it;" \
			'`dvc pull` fetches it if a remote has it (docs/remotes.md)' >&2; exit 2; }; done
	$(ACTIVATE) && dvc repro --quiet
	@printf '\nTo go on:\n  . .venv/bin/activate\n  dvc metrics show\n  python -m webbrowser data/report.html\n'

pictures: install  ## a model of your own pictures: make pictures FROM=~/animals
	$(ACTIVATE) && python -m stages.pictures $(if $(DRY_RUN),--dry-run) -- "$$FROM"

gate: install  ## have the metrics regressed compared with the remote's main branch?
	$(ACTIVATE) && python -m stages.gate

experiments: install  ## which params of DVC's experiments are best on the validation images?
	$(ACTIVATE) && python -m stages.gate.best

verify: install  ## does this machine reproduce the committed results, in twenty environments?
	$(ACTIVATE) && python -m stages.verify

test: install  ## run all tests; for a quick loop: pytest -m 'not slow and not mnist'
	$(ACTIVATE) && pytest --numprocesses auto --dist worksteal

fuzz: install  ## an hour of broken files for every reader; FUZZ_SECONDS=60 make fuzz for a minute
	$(ACTIVATE) && FUZZ_SECONDS=$${FUZZ_SECONDS:-3600} pytest tests/fuzz --capture=no --timeout=0

faults: install  ## make each file operation fail, or kill the command after it; `make test` samples
	$(ACTIVATE) && FAULTS=all pytest tests/faults --numprocesses auto -rP

check: install  ## lint, format, types and workflows
	$(ACTIVATE) && ruff check && ruff format --check && mypy && \
		check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml && \
		zizmor --offline --quiet .github && \
		check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

bench: install  ## compare with the tutorial's loop and scikit-learn, in one run
	$(ACTIVATE) && python -m benchmarks

bench-scale: install  ## seconds and memory of each stage on 10,000 and 100,000 pictures in shards
	$(ACTIVATE) && python -m benchmarks.scale

lock: install  ## pin versions and hashes for all platforms; keep the pins that pyproject.toml still allows
	$(ACTIVATE) && UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal \
		--python-version 3.11 --generate-hashes --extra pipeline --extra s3 --extra dev \
		--output-file requirements.lock pyproject.toml

plots-page: install  ## inline the locked release of Vega into the page that `dvc plots show` makes
	$(ACTIVATE) && python -m scripts.plots_page

screenshots: install  ## take the README's pictures of data/report.html
	$(ACTIVATE) && python -m scripts.screenshots

# Without CUDA, torch and torchvision have other files and other hashes, in an index of their own:
# their versions are those of the lock, and the packages with CUDA's libraries are left out.
install:
	@cmp -s requirements.lock .venv/installed.lock || { \
		case '$(TORCH)' in cpu|cuda) ;; *) \
			echo "error: TORCH=$(TORCH): expected cpu or cuda" >&2; exit 2;; esac; \
		command -v $(PYTHON) > /dev/null || \
			{ echo "error: no $(PYTHON): install Python 3.11 or newer, or make PYTHON=/path/to/python" >&2; exit 2; }; \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
			{ echo "error: $$($(PYTHON) --version) is too old: 3.11 or newer is needed; make PYTHON=/path/to/python" >&2; exit 2; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
			{ echo "error: $(PYTHON) has no venv: install it (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }; \
		echo 'Installing the locked packages into .venv, $(if $(filter cpu,$(TORCH)),about 2 GB,about 6 GB; without a GPU make TORCH=cpu saves 4 GB). This takes some minutes.' && \
		$(PYTHON) -m venv --clear .venv && \
		if [ '$(TORCH)' = cpu ]; then \
			awk '/^[a-z]/ { skip = /^(torch|torchvision|triton|cuda|nvidia)[a-z0-9-]*==/ } !skip' requirements.lock > .venv/without-cuda.lock && \
			$(PIP) --require-hashes -r .venv/without-cuda.lock && \
			$(PIP) --index-url https://download.pytorch.org/whl/cpu \
				$$(sed -n 's/^\(torch\(vision\)\?==[^ ;]*\).*/\1/p' requirements.lock); \
		else $(PIP) --require-hashes -r requirements.lock; fi && \
		cp requirements.lock .venv/installed.lock; }

clean:  ## remove .venv and the tools' caches: not data/, nor DVC's cache
	@du -shc $(TOOLS) 2> /dev/null | tail -n 1 | sed 's/total/freed/'
	@rm -rf $(TOOLS)
	@find . -name __pycache__ -prune -exec rm -rf {} +

clean-data:  ## remove what the pipeline made and git ignores, and DVC's cache
	@if ls pictures/*.dvc > /dev/null 2>&1; then \
		echo 'error: pictures/: found pictures of your own, whose versions are in DVC'"'"'s cache; expected none;' \
			'`dvc gc --workspace` removes the versions that nothing uses any more' >&2; exit 2; fi
	@du -shc data .dvc/cache .dvc/tmp 2> /dev/null | tail -n 1 | sed 's/total/freed, less what git keeps in data/'
	@rm -rf .dvc/cache .dvc/tmp && git clean -fdXq data

TOOLS = .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache dvc_plots
