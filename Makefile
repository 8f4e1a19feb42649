# The targets people use; what they do is in hack/, runtime-tools-tests/ and .ci/.
.DEFAULT_GOAL := help
.PHONY: help setup build run test validation bench install lint fmt clean

PREFIX ?= /usr/local
RUNTIME ?= target/release/tare

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## install what a build needs (Debian: by apt; the Rust toolchain itself comes from rustup)
	@hack/setup toolchain

build: setup ## a static, stripped tare in target/release
	@hack/build

run: build ## run a small container and see that it is one
	@hack/setup busybox-static
	@hack/show $(RUNTIME)

test: ## formatting, lints, unit tests, end-to-end tests on tare and, to prove the tests, on runc and crun
	@hack/test

validation: build ## the validation suite of opencontainers/runtime-tools, into runtime-tools-tests/RESULTS.md
	@hack/setup busybox-static runc crun uidmap
	@runtime-tools-tests/run --write --oci-version crun=1.0.2 $(RUNTIME) $(RUNTIME)@v2 runc runc@v2 crun@v1

bench: build ## time tare beside runc and crun
	@hack/compare

install: build ## install tare to $(PREFIX)/sbin
	install -D -m 0755 target/release/tare $(DESTDIR)$(PREFIX)/sbin/tare

lint: setup ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: setup ## format the code
	cargo fmt --all
	rustfmt --edition 2024 hack/compare.rs

clean: ## remove everything built, and the cached root file systems
	cargo clean
	rm -rf runtime-tools-tests/.work
