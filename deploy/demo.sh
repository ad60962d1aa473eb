#!/usr/bin/env bash
# Shows the whole of Recurve on this machine: fetches ONNX Runtime, builds, exports the demo model, starts the daemon,
# and streams answers from it. Stops the daemon at the end, and leaves only target/ and .cache/ behind.
#
#   deploy/demo.sh                   asks three questions
#   deploy/demo.sh "your prompt"     asks yours
#
# Needs a Rust toolchain, a C compiler and Python's pip. With RECURVE_BIN_DIR=FOLDER it builds nothing and takes the
# programs in that folder.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bundle=$repository/.cache/demo/bundle
prompts=(
    "Please set the bedroom fan to 40"
    "lock the garage door"
    "Boiler room: temperature 86 C (limit 80), pressure 2.1 bar (limit 3). How is it?"
)
# How long the daemon may take to be ready, and to stop, in seconds.
ready_within=60 stopped_within=20

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi

die() { printf 'demo.sh: %s\n' "$*" >&2; exit 1; }
step() { printf '%s== %s%s\n' "$dim" "$*" "$plain"; }
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }

# Prints every tool that is missing, each with the command that installs it.
missing_tools() {
    local wanted found
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)".*/\1/p' "$repository/Cargo.toml")
    if ! command -v cargo >/dev/null; then
        echo "Rust $wanted or later; install it: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
    elif ! found=$(rustc --version 2>&1 | sed -n 's/^rustc \([0-9.]*\).*/\1/p') || [ -z "$found" ]; then
        echo "rustc, beside cargo; install it: rustup default stable"
    elif [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
        echo "Rust $wanted or later, not $found; update it: rustup update stable"
    fi
    command -v cc >/dev/null || echo "a C compiler (cc); install it: sudo apt-get install gcc libc6-dev"
    if ! command -v python3 >/dev/null; then
        echo "python3 with pip; install them: sudo apt-get install python3 python3-pip"
    elif [ -z "${ORT_DYLIB_PATH-}" ] && [ ! -f "$repository/.cache/onnxruntime/libonnxruntime.so" ] &&
        ! python3 -m pip --version >/dev/null 2>&1; then
        echo "Python's pip; install it: sudo apt-get install python3-pip"
    fi
}

daemon='' work=''
# Whatever ends the script, also ends the daemon and removes the folder of its socket and log.
clean_up() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    # Interrupted, the daemon may have ended before it could catch a signal: no news then.
    if [ "$status" -ne 0 ]; then stop_daemon 2>/dev/null || true; else stop_daemon || status=1; fi
    [ -z "$work" ] || rm -rf "$work"
    exit "$status"
}

# Ends the daemon and waits for it. Fails when it had to be killed, or ended with an error.
stop_daemon() {
    [ -n "$daemon" ] || return 0
    local pid=$daemon status=0 until=$((SECONDS + stopped_within))
    daemon=''
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        [ "$SECONDS" -lt "$until" ] || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.05
    done
    wait "$pid" || status=$?
    [ "$status" -eq 0 ] && return 0
    printf 'demo.sh: the daemon ended with status %s; its log:\n' "$status" >&2
    cat "$work/log" >&2
    return 1
}

# Starts the daemon on a socket of its own and returns when it serves.
start_daemon() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/recurve-demo-XXXXXX")
    socket=$work/socket
    # The loop below reads the log before the new process opens it.
    : >"$work/log"
    # Only what this script says counts, not the settings of a daemon that is installed here. In a session of its own,
    # because Ctrl-C reaches every process of a terminal's group: the daemon is to be stopped once, by this script.
    env -i PATH="$PATH" HOME="${HOME:-/}" ${ORT_DYLIB_PATH+ORT_DYLIB_PATH="$ORT_DYLIB_PATH"} \
        setsid "$programs/recurved" --config /dev/null --bundle "$bundle" --listen "unix:$socket" --state-dir "$work/state" \
        </dev/null >"$work/log" 2>&1 &
    daemon=$!
    local until=$((SECONDS + ready_within))
    until grep -q ' ready ' "$work/log"; do
        kill -0 "$daemon" 2>/dev/null || return 1
        [ "$SECONDS" -lt "$until" ] || die "the daemon was not ready within $ready_within s; its log: $(cat "$work/log")"
        sleep 0.05
    done
}

ask() {
    printf '\n%s> %s%s\n' "$bold" "$1" "$plain"
    "$programs/agent-cli" generate --on "unix:$socket" --temperature 0 -- "$1"
}

next_steps() {
    local shown=${programs#"$PWD"/} from=${bundle#"$PWD"/}
    printf '\nGo on with the same model:\n'
    printf '  %-66s %s\n' \
        "$shown/recurved --bundle $from" "serve it on 127.0.0.1:50051, until Ctrl-C" \
        "$shown/agent-cli chat" "talk to it, in another terminal" \
        "$shown/agent-cli generate \"unlock the garage door\"" "ask once" \
        "$shown/agent-cli bench" "measure this machine" \
        "$shown/agent-cli bundle inspect $from" "look into the bundle"
}

case ${1-} in
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; die "unknown option '$1'" ;;
esac
[ $# -eq 0 ] || prompts=("$*")

missing=$(missing_tools)
if [ -n "$missing" ]; then
    printf '%s\n' "$missing" | sed 's/^/demo.sh: missing: /' >&2
    exit 1
fi

trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -z "${ORT_DYLIB_PATH-}" ]; then
    step "ONNX Runtime"
    "$repository/deploy/fetch-onnxruntime.sh"
fi

if [ -n "${RECURVE_BIN_DIR-}" ]; then
    programs=$RECURVE_BIN_DIR
else
    step "Building (the first time takes some minutes)"
    programs=$repository/target/release
    cargo build --release --locked --manifest-path "$repository/Cargo.toml" --target-dir "$repository/target" \
        -p recurved -p agent-cli
fi

step "Exporting the demo model"
mkdir -p "$(dirname "$bundle")"
"$programs/agent-cli" export "$repository/deploy/demo-model" --weights int8 --out "$bundle" --overwrite

step "Starting the daemon"
start_daemon || { stop_daemon || true; die "the daemon did not start"; }

for prompt in "${prompts[@]}"; do ask "$prompt"; done
next_steps
