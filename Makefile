# The targets people use; what they do is in hack/, runtime-tools-tests/ and .ci/.
.DEFAULT_GOAL := help
.PHONY: help setup build man run test test-vm fault without validation clients bench install dist deb lint deny miri fmt clean

PREFIX ?= /usr/local
RUNTIME ?= target/release/tare
SUITE ?= trixie

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

test-vm: build ## the end-to-end tests in a Debian guest: cgroup v2 with every controller, systemd (SUITE=bookworm, trixie or sid)
	@hack/test-vm --suite $(SUITE)

fault: setup ## kill the runtime at each of its system calls, and let each fail: nothing may be left
	@hack/setup busybox-static
	CARGO_BUILD_TARGET=$$(hack/triple) TARE_FAULT=$(or $(TARE_FAULT),all) cargo test --package tare --test fault -- --nocapture

without: setup ## the end-to-end tests on tare without openat2, clone3 and others of the newer system calls
	@hack/without

validation: build ## the validation suite of opencontainers/runtime-tools, into runtime-tools-tests/RESULTS.md
	@hack/setup busybox-static runc crun uidmap
	@runtime-tools-tests/run --write --oci-version crun=1.0.2 $(RUNTIME) $(RUNTIME)@v2 runc runc@v2 crun@v1 \
		$(wildcard target/peers/youki) $(addsuffix @v2,$(wildcard target/peers/youki target/peers/youki-no-devices))

clients: build ## containerd, Docker, podman, buildah, umoci and CRI with tare, runc and crun, compared with what runc does
	@hack/setup runc crun
	@hack/criu >/dev/null
	@clients/run tare runc crun

bench: build ## time tare beside runc, crun and the floor, into bench/results.json (QUICK=1: a minute, and nothing kept)
	@hack/bench/run $(if $(QUICK),--quick)

man: setup ## man pages and shell completion from the definitions of the flags, into target/documents
	@rm -rf target/documents
	CARGO_BUILD_TARGET=$$(hack/triple) cargo run --quiet --package tare --example documents -- target/documents

install: build man ## install tare to $(PREFIX)/sbin, its man pages and shell completion to $(PREFIX)/share
	install -D -m 0755 target/release/tare $(DESTDIR)$(PREFIX)/sbin/tare
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man8 target/documents/man8/*.8
	install -D -m 0644 target/documents/completions/tare.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/tare
	install -D -m 0644 target/documents/completions/_tare $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_tare
	install -D -m 0644 target/documents/completions/tare.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/tare.fish

dist: setup ## the release tarball of what is committed, reproducible: target/dist/tare-VERSION-TRIPLE.tar.gz
	@hack/dist

deb: setup ## the same as a Debian package: target/dist/tare_VERSION_ARCH.deb
	@hack/dist --deb

lint: setup ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	CARGO_BUILD_TARGET=$$(hack/triple) cargo clippy --workspace --all-targets -- -D warnings

deny: setup ## licences, duplicates, sources and advisories of the dependencies, by cargo-deny
	@hack/deny

miri: setup ## what only computes under Miri, which finds undefined behaviour
	@hack/miri

fmt: setup ## format the code
	cargo fmt --all

clean: ## remove everything built, and the cached root file systems
	cargo clean
	rm -rf runtime-tools-tests/.work
