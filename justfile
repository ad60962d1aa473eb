# The commands that one needs. `just` without a name lists them; each is one line that also runs by hand.

default:
    @just --list

# Build the programs and every test, as CI does
build:
    cargo build --release --locked --workspace --all-targets

# Format, lints and scripts
lint:
    cargo fmt --all --check
    cargo clippy --release --locked --workspace --all-targets -- -D warnings

# The loop for one crate: `just one recurve-text`
one crate *filter:
    cargo test -p {{crate}} --lib {{filter}}

# All tests of Rust; `just test FILTER` runs those whose names contain FILTER
test *filter:
    RECURVE_BIN_DIR=target/release cargo test --release --locked --workspace {{filter}}

# Everything that CI runs
check:
    tests/run.sh

# The whole of Recurve on this machine, once
demo *question:
    deploy/demo.sh {{question}}

# The Debian packages: `just package amd64`
package arch:
    deploy/package.sh {{arch}}

# The service under a real systemd, in containers and virtual machines
systemd *options:
    sudo tests/systemd.sh {{options}}

# The short benchmarks, on the bundle of the demo
bench:
    target/release/bench --short .cache/demo/bundle

# The API documentation, without that of the dependencies
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
