# Everything hilnas does, by one word. `make demo` and `make test` set themselves up on a fresh clone.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

DATA    ?= scenes
ENCODER ?=
CAMVID  ?=
BOARD   ?= loopback
CONFIG  ?= demo-$(firstword $(subst :, ,$(DATA)))
RUN     ?= runs/$(if $(filter scenes,$(DATA)),demo,$(firstword $(subst :, ,$(DATA))))

MODELS  ?=
TAU     ?=
BASELINE ?=
KEY     ?=

AGREEMENT     = $(if $(MODELS),--models $(MODELS)) $(if $(TAU),--tau $(TAU))
EXPERIMENT = --config $(CONFIG) --data $(DATA) --board $(BOARD) $(if $(ENCODER),--encoder-from $(ENCODER))
PROMOTE = --against $(BASELINE) --board $(BOARD) --data $(DATA)
SETUP := $(VENV)/.installed
DEVELOP := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help setup system demo camvid test test-qemu check bench docs profile luts loop agree regress bundle release board-check clean

help:  ## the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  DATA=$(DATA) ENCODER=$(ENCODER) BOARD=$(BOARD) CONFIG=$(CONFIG)"

setup: $(DEVELOP)  ## a virtual environment with everything in it

# torch comes first: what depends on it would otherwise pull a build with gigabytes of CUDA.
$(SETUP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(DEVELOP): $(SETUP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--editable '.[tensorflow,onnx,postgres,labgrid,ray,tensorboard,docs,dev]'
	@touch $@

system:  ## Debian packages that some tests need (sshd, dropbear, busybox, Chromium, PostgreSQL's programs); as root
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends openssh-client openssh-server openssh-sftp-server procps \
		dropbear-bin busybox chromium postgresql-common
	sed -i 's/^#* *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
	apt-get install -y -qq --no-install-recommends postgresql  # no server starts: the tests start their own

demo: $(SETUP)  ## the main job: DATA=scenes | camvid:DIR | cityscapes:DIR | shapes | folders:DIR, ENCODER=FILE.tflite
	@$(BIN)/hilnas demo $(EXPERIMENT)

camvid: $(SETUP)  ## the study of docs/camvid.md, hours: CAMVID=FOLDER ENCODER=FILE.tflite
	@$(BIN)/hilnas study camvid --data camvid:$(CAMVID) --encoder-from $(ENCODER)

test: $(DEVELOP)  ## every test
	@$(BIN)/python -m pytest

test-qemu: $(DEVELOP)  ## a board in QEMU, hung, reset and unplugged (makes it first; 8 minutes in all)
	@$(BIN)/hilnas board qemu build
	@HILNAS_QEMU=1 $(BIN)/python -m pytest -m qemu tests/hil tests/deploy/ship

check: $(DEVELOP)  ## formatting, lint, types, import rules: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/board_scripts/test_imports.py

bench: $(DEVELOP)  ## benchmarks into runs/bench.json; fails where a limit does not hold
	@mkdir -p runs
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only --benchmark-json=runs/bench.json
	@$(BIN)/python -m tests.benchmarks.limits runs/bench.json

docs: $(DEVELOP)  ## the documentation as a site in site/; fails where a link leads nowhere
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

profile: $(SETUP)  ## measure every subnet on BOARD
	@$(BIN)/hilnas loop $(EXPERIMENT) --until profile

luts: $(SETUP)  ## the NSR, size and latency tables
	@$(BIN)/hilnas lut nsr $(EXPERIMENT)
	@$(BIN)/hilnas lut size $(EXPERIMENT)
	@$(BIN)/hilnas lut latency $(EXPERIMENT)

loop: $(SETUP)  ## every stage of CONFIG
	@$(BIN)/hilnas loop $(EXPERIMENT) $(AGREEMENT)

agree: $(SETUP)  ## do the tables' sums rank MODELS full models as BOARD does? fails below TAU
	@$(BIN)/hilnas agree $(EXPERIMENT) $(AGREEMENT)

regress: $(SETUP)  ## latency of RUN's models against baselines/BOARD (make one: hilnas regress --update)
	@$(BIN)/hilnas regress --run $(RUN) --board $(BOARD)

bundle: $(SETUP)  ## verify RUN's bundle on BOARD; BASELINE=BUNDLE: is it at least as good?
	@$(BIN)/hilnas bundle verify $(RUN)/bundle --board $(BOARD)
	$(if $(BASELINE),@$(BIN)/hilnas bundle promote $(RUN)/bundle $(PROMOTE))

release: $(SETUP)  ## RUN's bundle as one file, verified; KEY=FILE: signed, BASELINE=BUNDLE: at least as good
	@$(BIN)/hilnas bundle pack $(RUN) --out $(RUN)/release.bundle
	$(if $(KEY),@$(BIN)/hilnas bundle sign $(RUN)/release.bundle --key $(KEY))
	@$(BIN)/hilnas bundle verify $(RUN)/release.bundle --board $(BOARD)
	$(if $(BASELINE),@$(BIN)/hilnas bundle promote $(RUN)/release.bundle $(PROMOTE) --report $(RUN)/release.md --junit $(RUN)/release.xml)

board-check: $(SETUP)  ## is BOARD ready?
	@$(BIN)/hilnas board check $(BOARD)

clean:  ## remove the virtual environment and caches, keep runs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
