# Two commands are for everybody: `make demo` and `make test`. Both need Python 3.11 or newer, pip and nothing else;
# what they install lies in .venv. `make PYTHON=/path/to/python` chooses the interpreter.

ifndef PYTHON
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
endif
VENV := .venv
RUN := $(VENV)/bin/python -m
NPM := tests/browser
# Several files at a time, in the order of tests/conftest.py; most tests wait more than they work.
AT_A_TIME := --dist=loadfile --no-loadscope-reorder --numprocesses

# A relay starts sooner when what it imports was compiled before.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test coverage check js npm docs sbom audit lock clean python

help:
	@echo 'make demo      Starts a relay with a voice that counts aloud, and prints the address of its page.'
	@echo 'make test      Checks format, lint and types, and runs every test.'
	@echo 'make coverage  Runs the tests that judge no time, and shows which lines of relay/ they reach.'
	@echo 'make check     Checks format, lint and types of the Python code.'
	@echo 'make js        Checks format, lint and types of the JavaScript. It needs Node.js 20 and npm.'
	@echo 'make docs      Writes the reference of the Python API from the docstrings into dist/api.'
	@echo 'make sbom      Writes the bill of materials of the container (CycloneDX) into dist/sbom.cdx.json.'
	@echo 'make audit     Asks PyPI for known vulnerabilities of what the container contains. It needs the internet.'
	@echo 'make lock      Puts the newest versions that pyproject.toml allows into requirements/*.lock.'
	@echo 'make clean     Removes the environment and all caches.'

demo: python
	@$(PYTHON) scripts/environment.py $(VENV) media
	@$(VENV)/bin/relay demo

# Playwright's driver needs libatomic. The marks that choose the tests of each run are explained in pyproject.toml.
test: check
	@$(PYTHON) scripts/debian_packages.py chromium=chromium curl=curl firefox-esr=firefox-esr libatomic1=libatomic.so.1 \
		jq=jq libopus0=libopus.so.0 libspeexdsp1=libspeexdsp.so.1 nginx=nginx nodejs=node npm=npm openssl=openssl \
		pulseaudio=pulseaudio systemd=systemd-analyze webkit2gtk-driver=WebKitWebDriver xvfb=Xvfb
	@node --test --test-reporter=dot tests/player/*.test.js
	@$(MAKE) --no-print-directory js
	@$(RUN) pytest tests/browser -m ear
	@$(RUN) pytest tests/browser -m pages $(AT_A_TIME)=3
	@$(RUN) pytest tests/integration tests/reliability -m timed $(AT_A_TIME)=4
	@$(RUN) pytest tests/integration tests/unit -m 'not timed' $(AT_A_TIME)=4 -o asyncio_debug=true

# Coverage takes as much CPU time again as the tests, so `make test` goes without it.
coverage: check
	@$(RUN) pytest tests/integration tests/unit -m 'not timed' $(AT_A_TIME)=4 --cov --cov-report=term

check: python
	@$(PYTHON) scripts/environment.py $(VENV) test
	@$(RUN) ruff format --check --quiet . || { echo 'make: to format them: $(RUN) ruff format .'; exit 1; }
	@$(RUN) ruff check --quiet .
	@$(RUN) mypy

js: npm
	@npm run check --prefix $(NPM) --silent

npm:
	@cmp -s $(NPM)/package-lock.json $(NPM)/node_modules/installed || { \
		npm ci --prefix $(NPM) --silent --no-audit --no-fund && cp $(NPM)/package-lock.json $(NPM)/node_modules/installed; }

docs: python
	@$(PYTHON) scripts/environment.py $(VENV) test
	@$(RUN) pdoc --docformat google relay relay.client --output-directory dist/api

sbom: python
	@$(PYTHON) scripts/sbom.py $(VENV)/sbom dist/sbom.cdx.json

# It reads the lock alone, so it can run on another machine than this one; whatever can not be asked for is a failure.
audit: python
	@$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip -qq install --no-deps --require-hashes -r requirements/audit.lock
	@$(VENV)/audit/bin/pip-audit --strict --disable-pip --require-hashes -r requirements/runtime.lock

lock: python
	@$(PYTHON) -m venv $(VENV)/lock
	@$(VENV)/lock/bin/python -m pip -qq install 'uv>=0.13,<0.14'
	@$(VENV)/lock/bin/python scripts/lock.py

clean:
	rm -rf $(VENV) $(NPM)/node_modules build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find relay scripts tests -name __pycache__ -type d -exec rm -rf {} +

python:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'make: this needs Python 3.11 or newer (on Debian: apt-get install python3 python3-venv)' >&2; exit 1; }
