# Needs make and Python 3.11 or later, nothing else. `make` alone tells what there is.

VENV ?= .venv
ARGS ?=
SECONDS ?= 60

BIN := $(VENV)/bin
PY := $(BIN)/python
EXTRAS := demo,postgresql,test,lint
CODE := $(wildcard jaiminho_celery parviraptor_celery example_project tests benchmarks)

# mysqlclient is compiled on installation: only where the headers of its C library are at hand.
MYSQL := $(shell for name in mysqlclient mariadb libmariadb; do \
	pkg-config --exists $$name 2>/dev/null && echo with-mysql && break; done)
INSTALLED := $(VENV)/.installed$(addprefix -,$(MYSQL))

.DEFAULT_GOAL := help
.PHONY: help demo up test mutations guarantees benchmark lint format typecheck migrations-check \
	build clean

help: ## Show this list
	@echo "Usage: make TARGET [ARGS=\"...\"]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "ARGS is handed on: make test ARGS=\"-k lanes -x\". The first target sets up $(VENV);"
	@echo "PYTHON=python3.13 chooses the interpreter for it."

demo: $(INSTALLED) ## Run the whole example on real processes, break things, show the ledger
	@$(PY) -m example_project.demo $(ARGS)

up: $(INSTALLED) ## Run web, worker, beat and Flower together until Ctrl-C
	@$(PY) -m example_project.up $(ARGS)

test: $(INSTALLED) ## Run the tests, with servers of their own (REQUIRE_SERVICES=1: skip nothing)
	@$(PY) -m pytest $(ARGS)

mutations: $(INSTALLED) ## Take out each protecting line in turn; a test must turn red each time
	@$(PY) -m tests.mutations $(ARGS)

guarantees: $(INSTALLED) ## Check that docs/guarantees.md counts the cases of its tests (ARGS=--write)
	@$(PY) -m tests.guarantees $(ARGS)

soak: $(INSTALLED) ## Break everything at random for SECONDS (60), then check every promise
	@$(PY) -m tests.soak --seconds $(SECONDS) $(ARGS)

benchmark: $(INSTALLED) ## Measure side by side with other outboxes (ARGS="--help" tells what there is)
	@$(PY) -m benchmarks $(ARGS)

lint: $(INSTALLED) ## Look for mistakes and for code that is not formatted
	@$(PY) -m ruff check $(ARGS) .
	@$(PY) -m ruff format --check .

format: $(INSTALLED) ## Format the code and repair what can be repaired
	@$(PY) -m ruff check --fix --exit-zero $(ARGS) .
	@$(PY) -m ruff format .

typecheck: $(INSTALLED) ## Check the types
	@$(PY) -m mypy $(ARGS)

migrations-check: $(INSTALLED) ## Check that no model lacks a migration
	@DJANGO_SETTINGS_MODULE=tests.settings $(PY) -m django \
		makemigrations --check --dry-run jaiminho_celery parviraptor_celery
	@DJANGO_SETTINGS_MODULE=example_project.settings $(PY) -m django \
		makemigrations --check --dry-run jaiminho_celery parviraptor_celery departures

build: $(INSTALLED) ## Build the wheel and the source distribution into dist/
	@$(PY) -m build $(ARGS) .

clean: ## Remove what was built and cached (keeps the virtual environment)
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis htmlcov .coverage*
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): setup.cfg pyproject.toml | $(PY)
	@echo "Installing into $(VENV) (a minute or two) ..."
ifdef MYSQL
	@$(PIP_INSTALL) -e '.[$(EXTRAS),mysql]' || { \
		echo "Trying again without mysqlclient; tests on MariaDB will be skipped ..." >&2; \
		$(PIP_INSTALL) -e '.[$(EXTRAS)]'; }
else
	@$(PIP_INSTALL) -e '.[$(EXTRAS)]'
endif
	@rm -f $(VENV)/.installed*
	@touch $@

PIP_INSTALL = $(PY) -m pip install --quiet --disable-pip-version-check

# Debian's `python3 -m venv` leaves half an environment behind when python3-venv is missing.
$(PY):
	@python="$$($(FIND_PYTHON))" || exit 1; \
	echo "Creating $(VENV) with $$("$$python" --version) ..."; \
	"$$python" -m venv $(VENV) >$(VENV).log 2>&1 && rm -f $(VENV).log && exit 0; \
	rm -rf $(VENV); \
	{ "$$python" -m virtualenv -q $(VENV) || virtualenv -q -p "$$python" $(VENV) \
	  || uv venv -q --seed -p "$$python" $(VENV); } >>$(VENV).log 2>&1 \
	  && rm -f $(VENV).log && exit 0; \
	rm -rf $(VENV); cat $(VENV).log >&2; rm -f $(VENV).log; \
	echo "No virtual environment could be created. On Debian and Ubuntu:" \
	  "apt-get install python3-venv; elsewhere install virtualenv or uv." >&2; \
	exit 1

# Prints the interpreter to use: PYTHON if it is given, else the first that is new enough.
define FIND_PYTHON
for candidate in $${PYTHON:-python3 python3.13 python3.12 python3.11}; do \
	"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  && echo "$$candidate" && exit 0; \
done; \
echo "Python 3.11 or later is needed, and none was found as $${PYTHON:-python3, python3.13, python3.12 or python3.11}." \
  "Install it, or name it: make PYTHON=/path/to/python3.12" >&2; \
exit 1
endef

export PYTHON
