#!/usr/bin/env bash
# Installs the packages into real Debian systems with a real systemd, and has them do all that a service must: start, restart under
# load, be stuck, be upgraded, run out of memory and disk, lose power. Prints a line for each point.
#
#   tests/systemd.sh [--short|--container] [--cuts N] [--seed N] [--board|--no-board] [--only PATTERN]
#
#   --short     what CI runs: in containers all but what others show as well, and of the points in a virtual machine those that need
#               one, with 2 power cuts
#   --container only what containers can show, in three minutes
#   --cuts      how often the virtual machine loses its power (default: 10; 2 with --short; 0 for none)
#   --seed      of the instants at which it does; printed, to be repeated
#   --board     also the arm64 package on an emulated board (the default without --short)
#   --possible  only says whether this machine can do it: nothing else happens
#   --only      only points whose names match this regular expression, and what those need
#
# The containers are systemd-nspawn's, of Debian 12 and 13; the machines are QEMU's without hardware acceleration. Root file systems
# are made once (mmdebstrap) and kept in .cache/vm; so is the log of each run, .cache/vm/log. Takes the packages in target/debian;
# those that are missing or older than the last commit are made by deploy/package.sh. Needs root. What is missing it installs with
# CI=true or as root: mmdebstrap, systemd-container, e2fsprogs, openssh-client, QEMU. Exit code 77: a plain Debian cannot be made or
# started here.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
here=$repository/tests/systemd
cache=$repository/.cache/vm

die() { printf 'systemd.sh: %s\n' "$*" >&2; exit 1; }
# What fails before anything of ours is there is no verdict on it, and takes none back.
unable() {
    printf 'systemd.sh: %s\n' "$*" >&2
    [ ${#failed[@]} = 0 ] || verdict || exit 1
    exit 77
}
usage() { sed -n '2,20s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

short=false contained=false possible=false cuts='' seed=$RANDOM board='' only=.
while [ $# -gt 0 ]; do
    case $1 in
        --short) short=true; shift ;;
        --container) contained=true; shift ;;
        --possible) possible=true; shift ;;
        --cuts) cuts=${2:?--cuts needs a number}; shift 2 ;;
        --seed) seed=${2:?--seed needs a number}; shift 2 ;;
        --board) board=true; shift ;;
        --no-board) board=false; shift ;;
        --only) only=${2:?--only needs a regular expression}; shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; die "unknown argument '$1'" ;;
    esac
done
if [ "$short" = true ]; then : "${cuts:=2}" "${board:=false}"; else : "${cuts:=10}" "${board:=true}"; fi
[[ $cuts =~ ^[0-9]+$ && $seed =~ ^[0-9]+$ ]] || die "--cuts and --seed need whole numbers, not '$cuts' and '$seed'"
[ "$(id -u)" = 0 ] || die "needs root: containers, and file systems whose files belong to others. Run it with sudo"
[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || die "needs a Debian machine, amd64: its packages are installed into containers"
unshare --mount --pid --uts --ipc --net --fork true || die "this machine lets nobody make namespaces: no container can be started"
[ "$possible" = false ] || exit 0

mkdir -p "$cache/log"
log=$cache/log/$(date -u +%Y%m%dT%H%M%SZ).log
run=$(mktemp -d "$cache/run-XXXXXX")
# shellcheck source=tests/systemd/report.sh
. "$here/report.sh"
# shellcheck source=tests/systemd/images.sh
. "$here/images.sh"
# shellcheck source=tests/systemd/container.sh
. "$here/container.sh"
# shellcheck source=tests/systemd/machine.sh
. "$here/machine.sh"
# shellcheck source=tests/systemd/service.sh
. "$here/service.sh"
# shellcheck source=tests/systemd/packages.sh
. "$here/packages.sh"
# shellcheck source=tests/systemd/shortage.sh
. "$here/shortage.sh"
# shellcheck source=tests/systemd/cuts.sh
. "$here/cuts.sh"
# shellcheck source=tests/systemd/newer.sh
. "$here/newer.sh"
# shellcheck source=tests/systemd/guide.sh
. "$here/guide.sh"
# shellcheck source=tests/systemd/board.sh
. "$here/board.sh"

clean_up() {
    local status=$?
    trap - EXIT
    container_stop
    machine_off
    rm -rf --one-file-system "$run"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# In a function, so that all of it is read before anything is done.
main() {
    begun=$SECONDS
    printf 'log: %s\n' "$log"
    prepare_tools
    prepare_packages amd64
    prepare_image amd64
    prepare_root trixie

    heading "container (systemd-nspawn, this machine's processor)"
    container_start amd64
    service_points
    package_points
    container_stop

    heading "container of Debian 13, whose systemd is newer"
    container_start trixie
    newer_points
    container_stop

    # Debian 12 has shown the most of the page by then.
    releases=(amd64 trixie)
    [ "$short" = false ] || releases=(trixie)
    for release in "${releases[@]}"; do
        heading "docs/install.md, in a container of its own"
        container_start "$release"
        guide_points
        container_stop
    done

    if [ "$contained" = true ]; then verdict; exit; fi

    heading "virtual machine (QEMU without acceleration: slower than any board)"
    machine_on amd64 new
    if [ "$short" = true ]; then install_for_machine; else service_points; fi
    shortage_points
    machine_off
    power_cuts "$cuts" "$seed"

    if [ "$board" = true ]; then
        heading "emulated board (QEMU, cortex-a76 as in a Raspberry Pi 5, arm64 package)"
        prepare_packages arm64
        prepare_image arm64
        machine_on arm64 new
        board_points
        machine_off
    fi
    printf '\n%d s; log: %s\n' $((SECONDS - begun)) "$log"
    verdict
}
main
