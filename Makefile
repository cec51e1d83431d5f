# Everything that is done with this repository, on a fresh Debian 12 or 13 too,
# where only git, make, python3 and root (or sudo) exist.
#
#   make test       linters, docs, release notes, unit and functional tests
#   make static     of these, linters, docs and release notes: no Ceph needed
#   make unit       of these, the unit tests: no Ceph needed
#   make functional of these, the tests against two real clouds
#   make cover      the unit tests, with coverage
#   make demo       the commands at work between two real clouds
#   make bench      how fast it is
#   make test-long  the tests that take minutes
#   make clean      take the clouds and the environments away
#
# rados and rbd belong to the distribution's interpreter, so that one is used
# wherever there is a choice.
PYTHON := $(firstword $(wildcard /usr/bin/python3) python3)
export BINDINGS_PYTHON := $(PYTHON)

# The clouds here are the sandbox's, whatever cloud the caller's shell is set to.
# On clouds of your own: .venv/bin/tox -e functional, with OS_CLOUD set.
unexport OS_CLOUD OS_CLOUD_DESTINATION OS_CLIENT_CONFIG_FILE

TOX := .venv/bin/python -m tox
SANDBOX := $(PYTHON) tools/sandbox

# One after the other these are mostly waiting for pip; together they are not.
STATIC_ENVS := pep8,docs,releasenotes
ifeq ($(wildcard .git),)
# reno and the theme of the documentation read the history.
$(info No git history here: documentation and release notes are left out.)
STATIC_ENVS := pep8
endif
UNIT_ENVS := py3,py3-osc6

.DEFAULT_GOAL := help
.PHONY: help install static unit functional test test-long demo bench cover clean
# The steps of a target are in their order; what is parallel is tox's matter.
.NOTPARALLEL:

help:
	@sed -n 's/^#   //p' Makefile

# The packages of the distribution, where some are missing: Ceph and its Python
# bindings, the services' database and queue, python3-venv.
install:
	@$(SANDBOX) install

.venv/bin/tox:
	@rm -rf .venv
	@$(SANDBOX) install python3-venv
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check 'tox>=4.20,<5'

static: .venv/bin/tox
	@$(TOX) run-parallel --parallel-no-spinner -e $(STATIC_ENVS)

# -qq: pytest's closing line is then the last one.
unit: .venv/bin/tox
	@$(TOX) run -qq -e $(UNIT_ENVS)

functional: install .venv/bin/tox
	@$(TOX) run -qq -e functional

# All packages first, or they would be installed in two steps.
test: install static unit functional

test-long: install .venv/bin/tox
	@$(TOX) run -qq -e long

cover: .venv/bin/tox
	@$(TOX) run -qq -e cover

demo: install .venv/bin/tox
	@$(TOX) run -qq -e demo

bench: install .venv/bin/tox
	@$(TOX) run -qq -e bench

clean:
	@$(SANDBOX) down --purge
	@rm -rf $(if $(SANDBOX_DIR),,.sandbox) .venv .tox .import_linter_cache .mypy_cache .pytest_cache .ruff_cache \
		.coverage cover build dist doc/build releasenotes/build *.egg-info
