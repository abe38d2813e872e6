# Two commands are all a newcomer needs: `make demo` and `make test`.
# Each installs what is missing (redis-server, by apt-get, saying so).

SHELL := /bin/bash
CARGO ?= cargo
NEED := ./tests/need.sh
# Debian keeps haproxy where a user's PATH may not look.
export PATH := $(PATH):/usr/sbin

.PHONY: help demo test lint bench fuzz run build certs

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: ## Start a Redis and the proxy on it with TLS, and send a few commands through
	@$(NEED) redis-server redis-cli
	@$(CARGO) build --release
	@./tests/demo.sh

test: ## Run all tests
	@$(NEED) redis-server
	$(CARGO) test

lint: ## Formatting, clippy, and the documentation's links, with warnings as errors
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

bench: ## Compare with HAProxy; ARGS="--rounds 3 p1 p64" chooses
	@$(NEED) redis-server redis-benchmark haproxy
	$(CARGO) bench --bench proxy -- $(ARGS)

fuzz: ## Fuzz the scanners, SECONDS_EACH seconds each (needs cargo-fuzz)
	@./tests/fuzz/run.sh $(or $(SECONDS_EACH),60)

run: ## Run the proxy with config.json
	$(CARGO) run --release -- -f config.json

build: ## Build the release binary
	$(CARGO) build --release

certs: ## Make the test certificates again
	./certs/make.sh
