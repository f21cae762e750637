# make run     everything needed, then the main job: a guided tour of a real container (needs root, or sudo)
# make test    everything needed, then the lints and all tests, side by side
# make test-guest  only those that need another kernel than this one, or systemd: in a machine of their own (QEMU)
# make bench   everything needed, then the comparison with runc, crun, docker and podman
# make lint    ruff, mypy, import-linter, the C compiler's warnings, codespell
# make format  let ruff and clang-format put the sources into shape
# make clean   remove what the targets above made in this directory
#
# Every target installs only what is missing, and says so first.

SHELL   := /bin/bash
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
LAUNCHER := src/cloison/libexec/cloison-launcher
SUDO    := $(if $(filter 0,$(shell id -u)),,sudo)
# The integration tests need root; caches stay the caller's own
AS_ROOT := $(if $(SUDO),sudo env PYTHONDONTWRITEBYTECODE=1 PATH="$$PATH",)

RUN_PACKAGES   := iproute2:ip nftables:nft procps:ps
TEST_PACKAGES  := $(RUN_PACKAGES) busybox-static:/bin/busybox strace:strace docker-registry:docker-registry \
                  skopeo:skopeo umoci:umoci mmdebstrap:mmdebstrap musl-tools:musl-gcc fuse-overlayfs:fuse-overlayfs \
                  btrfs-progs:mkfs.btrfs xfsprogs:mkfs.xfs libarchive-tools:bsdtar docker.io:dockerd containerd:ctr \
                  podman:podman buildah:buildah
GUEST_PACKAGES := qemu-system-x86:qemu-system-x86_64 mmdebstrap:mmdebstrap e2fsprogs:mkfs.ext4 \
                  busybox-static:/bin/busybox
BENCH_PACKAGES := $(RUN_PACKAGES) busybox-static:/bin/busybox runc:runc crun:crun podman:podman docker.io:docker \
                  containerd:containerd hyperfine:hyperfine umoci:umoci libarchive-tools:bsdtar \
                  docker-registry:docker-registry skopeo:skopeo

.PHONY: run test test-guest bench lint format clean launcher set-up-run set-up-test set-up-bench
.DEFAULT_GOAL := run
.NOTPARALLEL:

run: set-up-run
	@$(BIN)/python -m compileall -q src
	@$(SUDO) env PATH="$(abspath $(BIN)):$$PATH" scripts/tour.sh

test: set-up-test lint
	@scripts/install-packages.sh $(PYTHON) $(GUEST_PACKAGES) || true
	$(AS_ROOT) $(BIN)/python tests/side_by_side.py $(PYTEST_ARGS)

test-guest: packages-guest $(VENV)/.dev $(LAUNCHER)
	$(AS_ROOT) $(BIN)/python tests/guest/machine.py $(PYTEST_ARGS)

bench: set-up-bench
	$(BIN)/python -m compileall -q src
	$(AS_ROOT) $(BIN)/python bench/compare.py $(BENCH_ARGS)

lint: $(VENV)/.dev $(LAUNCHER)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(MAKE) -s -C launcher lint

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	if [ -f launcher/.clang-format ]; then clang-format -i launcher/*.c launcher/*.h; fi

clean:
	$(MAKE) -s -C launcher clean
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

set-up-run: packages-run $(VENV)/.run $(LAUNCHER)
set-up-test: packages-test $(VENV)/.dev $(LAUNCHER)
set-up-bench: packages-bench $(VENV)/.dev $(LAUNCHER)

.PHONY: packages-run packages-test packages-guest packages-bench
packages-run: ; @scripts/install-packages.sh $(PYTHON) $(RUN_PACKAGES)
packages-test: ; @scripts/install-packages.sh $(PYTHON) $(TEST_PACKAGES)
packages-guest: ; @scripts/install-packages.sh $(PYTHON) $(GUEST_PACKAGES)
packages-bench: ; @scripts/install-packages.sh $(PYTHON) $(BENCH_PACKAGES)

launcher: $(LAUNCHER)
$(LAUNCHER): $(wildcard launcher/*.c launcher/*.h launcher/Makefile)
	$(MAKE) -C launcher
	@touch $@

# An editable install: the command runs these sources, so that a change needs no second install
$(VENV)/.run: pyproject.toml hatch_build.py | packages-run
	@scripts/make-venv.sh $(PYTHON) $(VENV) .
	@touch $@

$(VENV)/.dev: pyproject.toml hatch_build.py
	@scripts/make-venv.sh $(PYTHON) $(VENV) '.[dev]'
	@touch $@ $(VENV)/.run
