# Thin: everything is done by programs that can be called without make too.
PO := $(wildcard app/translations/*/LC_MESSAGES/*.po)
MO := $(PO:.po=.mo)

.PHONY: run ready test lint lab
.NOTPARALLEL:

run: .venv/ready $(MO)  ## Berth on http://127.0.0.1:$PORT, until Ctrl-C
	@exec .venv/bin/berth up

ready: .venv/ready $(MO)  ## installed here, or brought up to date, and nothing started

test: .venv/ready-dev $(MO)  ## everything that this machine can run; BERTH_REQUIRE=all: nothing may be skipped
	@.venv/bin/python -m tests.run

lint: .venv/ready-dev  ## ruff, mypy and the directions of imports
	@.venv/bin/python -m tests.run lint

lab: .venv/ready-dev $(MO)  ## as root: Berth on two real LXD daemons with emulated GPUs, gone at the end
	@exec .venv/bin/python -m tests.lab.try_out

.venv/ready: pyproject.toml
	@.ci/venv.sh

.venv/ready-dev: pyproject.toml
	@.ci/venv.sh dev

%.mo: %.po | .venv/ready
	@.venv/bin/pybabel --quiet compile -i $< -o $@
