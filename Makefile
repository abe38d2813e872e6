# Two commands are all a newcomer needs: `make demo` and `make test`.
# Each installs what is missing (redis-server, by apt-get, saying so).

SHELL := /bin/bash
CARGO ?= cargo
NEED := ./tests/need.sh
# Debian keeps haproxy where a user's PATH may not look.
export PATH := $(PATH):/usr/sbin
# All tests share the descriptors of one process, and a user may have 1024.
export RUST_TEST_THREADS ?= $(shell n=$$(nproc); echo $$((n < 16 ? n : 16)))

.PHONY: help demo test test-slow lint bench bench-switch bench-programs fuzz run build certs

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: ## Replace the Redis under fifty clients, six times, with a verdict; ARGS="--switches 20"
	@$(NEED) redis-server
	@$(CARGO) build --release --bin redis-proxy --bin switch-test
	@target/release/switch-test $(ARGS)

test: ## Run all tests
	@$(NEED) redis-server chromium chromedriver node node-redis python3-redis
	@failed=0; \
	run() { echo "$$*"; "$$@" || failed=$$?; }; \
	run $(CARGO) build; \
	run $(CARGO) test --no-fail-fast; \
	run $(CARGO) test --manifest-path tests/loom/Cargo.toml --target-dir target/loom; \
	exit $$failed

test-slow: ## Move up to 1 GB while clients write, and say for how long they were held
	@$(NEED) redis-server
	$(CARGO) test --release --test suite -- --ignored --nocapture

lint: ## Formatting, clippy, and the documentation's links, with warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path tests/loom/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

bench: bench-programs ## Compare with HAProxy; ARGS="--rounds 3 p1 p64" chooses
	@$(NEED) redis-server redis-benchmark haproxy
	@target/dist/bench-proxy $(ARGS)

bench-switch: bench-programs ## Measure what a reload costs clients; ARGS="--reloads 5 --clients 50,1000 tls"
	@$(NEED) redis-server
	@target/dist/bench-switch $(ARGS)

# The proxy by itself: built beside the benchmarks, it would get what only they need.
bench-programs:
	@$(CARGO) build --profile dist --bin redis-proxy
	@$(CARGO) build --profile dist -p bench

fuzz: ## Fuzz the scanners, SECONDS_EACH seconds each (needs cargo-fuzz)
	@./tests/fuzz/run.sh $(or $(SECONDS_EACH),60)

run: ## Run the proxy with config.json
	$(CARGO) run --release --bin redis-proxy -- -f config.json

build: ## Build the release binaries, as they are packaged, in target/dist
	$(CARGO) build --profile dist

certs: ## Make the test certificates again
	./certs/make.sh
