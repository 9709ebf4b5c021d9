# The lab's verbs. What they do is in lab/, and in noxfile.py for the tests.
export LAB_NAME ?= warren

.DEFAULT_GOAL := help
.PHONY: help lab lab-up lab-down venv clean

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: ## Start the lab fleet and turn it into a working VPN (LAB_SERVERS=N for more servers)
	@lab/start

lab-up: ## Start only the lab's hosts
	@lab/start hosts

lab-down: ## Remove the lab's hosts
	@lab/down

venv: ## Make .venv with the pinned versions
	@lab/bootstrap debian
	@lab/bootstrap venv

clean: lab-down ## Remove all that make lab and make test made, but for Debian packages
	@lab/clean

# The gates: noxfile.py has the sessions. .venv holds requirements/lab.txt and test.txt, whose pins agree.
.PHONY: test check test-kernel lint fix unit sanity build bench bench-sessions bench-portal bench-links docs pins gates-venv

gates-venv: venv
	@lab/bootstrap gates

test: gates-venv ## Run all gates, as CI does: lint, specs, unit, build, sanity, newest ansible-core, molecule, kernel
	@lab/bootstrap tests
	@.venv/bin/python tests/tools/gates.py

check: gates-venv ## What to run before each commit, under three minutes: lint, specs, unit, build, sanity
	@.venv/bin/python tests/tools/gates.py lint specs unit build sanity

test-kernel: gates-venv ## All that can run on Debian's own kernels, in emulated machines: 6.12, 6.1, and Debian 13
	@lab/bootstrap tests
	@.venv/bin/nox -s kernel -- all

lint: gates-venv ## ansible-lint, yamllint, ruff, mypy; argument_specs against defaults and READMEs
	@.venv/bin/nox -s lint specs

fix: gates-venv ## Mend what ruff can mend
	@.venv/bin/nox -s lint -- --fix

unit: gates-venv ## Run the unit tests
	@.venv/bin/nox -s unit

sanity: gates-venv ## ansible-test sanity, with ansible-core 2.19 and the newest
	@.venv/bin/nox -s sanity newest

build: gates-venv ## Build the collection, install it in an empty directory, run it from there
	@.venv/bin/nox -s build

bench: venv ## Measure a run without changes against the floor, and the offline render (about 20 minutes)
	@.venv/bin/python tests/bench/rollout/bench.py fleet
	@.venv/bin/python tests/bench/rollout/bench.py render

bench-sessions: venv ## Measure sessions against the source document's way of making them (about 9 minutes)
	@.venv/bin/python tests/bench/sessions/bench.py

bench-portal: venv ## Measure the portal with 500 clients at once (about a minute)
	@.venv/bin/python tests/bench/portal/bench.py

bench-links: gates-venv ## Measure 250 and 1,000 links of one server on Debian's own kernel, in an emulated machine
	@lab/bootstrap tests
	@.venv/bin/nox -s bench_links

docs: gates-venv ## Write the reference part of every role's README
	@.venv/bin/nox -s docs

pins: gates-venv ## Compile requirements/*.in to pinned requirements/*.txt
	@.venv/bin/nox -s pins
