# make demo     sets up what is missing, builds, runs three nodes, shows the main job, proves the nodes equal
# make test     sets up what is missing, runs every check that CI runs
# make help     the rest

PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
override PG_CONFIG := $(abspath $(PG_CONFIG))
CARGO_TARGET_DIR ?= $(CURDIR)/target
# How much: seeds of the simulator, seconds of each end-to-end workload and of each benchmark run.
SEEDS ?= 200
WORKLOAD_SECONDS ?= 10
BENCH_SECONDS ?= 15

# 15, 17 or 18; 15 where PG_CONFIG is not there yet, and is about to be installed.
PG_MAJOR := $(or $(shell $(PG_CONFIG) --version 2>/dev/null | sed 's/^PostgreSQL \([0-9]*\).*/\1/'),15)
FOR_MAJOR = -p postgres_r --no-default-features --features pg$(PG_MAJOR)

export PG_CONFIG CARGO_TARGET_DIR WORKLOAD_SECONDS BENCH_SECONDS

RELEASE = $(CARGO_TARGET_DIR)/release
# Everything but the extension, which only cargo-pgrx can link.
CRATES = --workspace --exclude postgres_r
# One profile for programs and tests, so that no dependency is compiled twice.
PROFILE = --release

.PHONY: help setup build install pg17 pg18 demo test unit loom django e2e suite isolation-postgres regress contrib applications packages manifests test-faults test-upgrade flood campaign bench sim lint deny clean

help:
	@echo 'make setup      installs what is missing: Debian packages, cargo-pgrx'
	@echo 'make build      release binaries in target/release'
	@echo 'make install    build, and the extension into the PostgreSQL of PG_CONFIG'
	@echo 'make pg17, make pg18   PostgreSQL 17 or 18 in target/postgresql, from Debian'"'"'s source packages; then any of these with PG_CONFIG=target/postgresql/17/bin/pg_config'
	@echo 'make demo       three nodes under load, one killed and back, then compared'
	@echo 'make test       everything that CI runs: lint, unit, simulator, end to end'
	@echo 'make test-faults   every fault of networks, processes and clocks 20 times (FAULTS_ROUNDS), as root; a table of times'
	@echo 'make test-upgrade   a group that goes from PostgreSQL 15 to 18 (NEWER=17: to 17), node by node, while it is written to'
	@echo 'make flood      10,000 connections at every port of a node, and what they cost the group'
	@echo 'make campaign   the end-to-end workloads at full length'
	@echo 'make bench      one plain server, one with two standbys, a group, MariaDB, Galera; tables, and target/bench/cluster.json'
	@echo 'make isolation-postgres   PostgreSQL'"'"'s own isolation suite, on one server and on a node of a group'
	@echo 'make regress    PostgreSQL'"'"'s own regression suite and those of contrib, on one server and on a node of a group'
	@echo 'make contrib    those of contrib alone'
	@echo 'make suite      a part of the regression suite; part of make test'
	@echo 'make packages   Debian packages in target/packages; installs them on three machines (namespaces, as root) as docs/install.md says, and runs there what packaging/kubernetes would'
	@echo 'make manifests  packaging/kubernetes by Kubernetes'"'"' schemas, scripts by shellcheck; part of make lint'
	@echo 'make applications   Django'"'"'s own test suite on one server and on a node of a group; Liquibase on three nodes at once; pgvector and PostGIS'
	@echo 'make sim SEEDS=n'
	@echo 'make loom       every interleaving of what processes do in shared memory; part of make test'
	@echo 'make lint | deny | clean'

setup:
	@tools/setup.sh

build: setup
	cargo build $(PROFILE) --locked -p gcs -p postgres_r_tests --bins

# As root, or where the directories are ours, plainly; else through sudo, which cargo-pgrx calls for the copying only.
install: build
	@if [ -w "$$($(PG_CONFIG) --pkglibdir)" ]; then sudo=; else sudo=--sudo; fi; \
	 set -x; cargo pgrx install --release $$sudo -c $(PG_CONFIG) $(FOR_MAJOR)

demo: install
	$(RELEASE)/demo

test: setup lint install unit e2e suite

# PostgreSQL 17 and 18 from Debian's source packages. Then: make test PG_CONFIG=target/postgresql/17/bin/pg_config
pg17 pg18: pg%:
	@tools/postgres-from-source.sh $*

# What needs no PostgreSQL: rules, checkers, interleavings, simulator, real daemons, tidy.
unit: setup loom
	SEEDS=$(SEEDS) cargo test $(PROFILE) --locked $(CRATES) --lib --bins --test 'core*' --test 'daemon*' --test 'tidy*' --test 'sim*'

# By itself, since the feature replaces the atomics of whatever is built with it.
loom: setup
	cargo test $(PROFILE) --locked -p postgres_r_protocol --features loom --test loom

# An application whose migrations are run against a group.
django: setup
	@tools/django.sh

# One file at a time, or JOBS: each has a group of its own.
e2e: django
	@tools/e2e.sh

# POSTGRES_SOURCE is PostgreSQL's source; without it Debian's source package is fetched.
isolation-postgres: install
	@tools/isolation-postgres.sh

# A part of it in which nearly every kind of statement occurs. Left out, with the reason, where PostgreSQL's source cannot be fetched.
suite: install
	@IF_SOURCE_IS_THERE=1 tools/regress-postgres.sh constraints create_view domain event_trigger foreign_key generated identity inherit insert \
	    insert_conflict largeobject matview merge plpgsql privileges returning rowsecurity rowtypes sequence truncate updatable_views with

regress: install
	@tools/regress-postgres.sh
	@$(MAKE) contrib

contrib: install
	@tools/setup.sh contrib
	@tools/contrib-postgres.sh

applications: install django
	@tools/django-suite.sh
	@tools/liquibase.sh
	@tools/extensions.sh

packages: install manifests
	@packaging/build.sh
	@packaging/check.sh
	@packaging/check-pods.sh

manifests: setup
	@packaging/check-manifests.sh

# From PG_CONFIG's PostgreSQL to a newer one, node by node, under load. NEWER=17 takes another.
NEWER ?= 18
test-upgrade: install
	@pg_config=$$(tools/postgres-from-source.sh $(NEWER)) && $(MAKE) install PG_CONFIG="$$pg_config" && \
	 PG_CONFIG_NEWER="$$pg_config" cargo test $(PROFILE) --locked -p postgres_r_tests --test 'upgrade_*' -- --test-threads=1 --nocapture

# In network namespaces of its own: needs root. FAULTS=leader-killed,all-apart picks some.
test-faults: install
	$(RELEASE)/faults

# In a network namespace of its own, with the limits of `gcs gen nftables`: needs root. Without them: target/release/flood
flood: install
	unshare --net sh -c 'ip link set lo up && exec $(RELEASE)/flood --limited'

campaign: install
	WORKLOAD_SECONDS=60 LARGE=full PAIRS=full GENERATOR_SEEDS=20 GENERATOR_STATEMENTS=500 $(MAKE) e2e
	cargo test $(PROFILE) --locked -p postgres_r_tests --test 'campaign_*' -- --test-threads=1 --nocapture

bench: install
	@tools/setup.sh bench
	cargo bench --locked -p postgres_r_benches

# SEED=s instead replays one, with its trace.
sim: setup
	SEEDS=$(SEEDS) cargo run $(PROFILE) --locked -p postgres_r_tests --bin sim

lint: setup manifests
	cargo fmt --all --check
	cargo clippy --locked $(CRATES) --all-targets -- -D warnings
	cargo clippy --locked -p postgres_r_protocol --features loom --all-targets -- -D warnings
	cargo clippy --locked $(FOR_MAJOR) --all-targets --no-deps -- -D warnings
	cargo test $(PROFILE) --locked -p postgres_r_tests --test tidy --test tidy_rooms

deny:
	@command -v cargo-deny >/dev/null || { echo 'deny: cargo-deny is missing; cargo install --locked cargo-deny'; exit 1; }
	cargo deny --locked check

clean:
	cargo clean
