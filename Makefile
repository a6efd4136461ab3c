# Two commands: `make demo` shows the program at work on real services, `make test` is everything that CI runs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CARGO_DENY_VERSION := 0.20.2

.PHONY: help demo test fmt clippy doc deny advisories unit unit-lab unit-others torture torture-crash torture-fire torture-store bench fuzz lab release
help:
	@echo "make demo    install what is missing, build, raise the laboratory, run token-push on it, prove the tokens, take it down"
	@echo "make test    formatting, lints, documentation, dependencies, unit, property, snapshot and laboratory tests"
	@echo "make bench   print the figures of benches/"
	@echo "make torture the long forms of the tests that crash it: hours, then on until one fails or Ctrl-C"
	@echo "make fuzz    try hostile input of every kind, each for FUZZ_SECONDS (60): fuzz/README.md"

demo: lab release
	MT=target/release/mt lab/demo

test: fmt lab clippy doc deny unit

fmt:
	cargo fmt --check

clippy:
	cargo clippy --locked --all-targets --all-features -- -D warnings
	cargo clippy --locked -- -D warnings    # as it is released, without crash points

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# Advisories need a database that is fetched from the network; `make advisories` checks them where that is possible.
# It looks at the crates of every target, and a build has fetched those of one. Built without optimisation: it works for 3 s
# then, and is there two and a half minutes sooner. What is fuzzed is what is shipped only while its lock file is in step.
deny:
	cargo fetch --locked
	cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	@command -v cargo-deny >/dev/null || cargo install --debug --locked --version $(CARGO_DENY_VERSION) cargo-deny
	cargo deny --offline check bans licenses sources

advisories:
	cargo deny check advisories

# With the crash points of src/crash_point.rs. A release must not have them, and does not compile with them. Tests in the
# laboratory wait much of their time, most of them for one thing after the other: the others run beside them.
# Without MAKEFLAGS, by which cargo would look for a jobserver that it is not given.
TEST := MAKEFLAGS= cargo test --locked --features failpoints
unit:
	$(TEST) --no-run
	$(MAKE) --jobs=2 unit-lab unit-others

unit-lab:
	$(TEST) --test 'lab_*'

unit-others:
	@! ls tests | grep '^l' | grep -v '^lab_' || { echo "the patterns below leave these out"; exit 1; }
	$(TEST) --lib --bins --test '[!l]*'
	$(TEST) --doc

bench:
	cargo bench --locked

# The long forms of the tests that crash it. All print what replays a bad round. The last goes on until it fails or is stopped.
torture: torture-store torture-crash torture-fire

# The power fails a hundred times.
torture-store:
	MT_TORTURE=1 $(TEST) --test store_disk -- --nocapture

# Every crash point with and without the guardian, in the laboratory too; every pair of crashes; many more random kills.
# The 20,000 pairs take a day on a disk and an hour or two in memory: MT_CRASH_PLACE=/dev/shm. MT_CRASH_STRIDE=20 tries every 20th.
torture-crash: lab
	MT_CRASH_TORTURE=1 MT_CRASH_PAIRS=$${MT_CRASH_PAIRS:-500} $(TEST) --test crash_points --test lab_crash -- --nocapture
	MT_KILL_ROUNDS=$${MT_KILL_ROUNDS:-1000} $(TEST) --test engine_kill -- --nocapture
	MT_KILL_ROUNDS=$${MT_LAB_KILL_ROUNDS:-100} $(TEST) --test lab_kill -- --nocapture

# From a round that differs every time: FIRE_SEED and FIRE_ROUNDS choose others.
torture-fire: lab
	FIRE_SEED=$${FIRE_SEED:-$$(date +%s)} FIRE_ROUNDS=$${FIRE_ROUNDS:-forever} \
	    $(TEST) --test fire -- --nocapture

fuzz:
	fuzz/run

lab:
	lab/lab install

release:
	cargo build --locked --release
