# shellcheck shell=bash
# A container that boots systemd: for all that needs no kernel of its own.

container='' # process of systemd-nspawn's terminal

# container_start ROOT: boots the root file system of that name in .cache/vm.
container_start() {
    where=container
    root=$run/container
    mkdir "$root"
    tar -C "$root" -xf "$cache/$1/root.tar"
    : >"$run/console"
    # It wants a terminal.
    setsid script -qfc "systemd-nspawn --quiet --boot --register=no --keep-unit --private-network \
        --machine=recurve-$$ --directory='$root'" "$run/console" </dev/null >/dev/null 2>&1 &
    container=$!
    until_so 60 container_leader >>"$log" 2>&1 || unable "the container does not start: $(tail -c 500 "$run/console")"
    until_so 60 on 'systemctl is-system-running --wait >/dev/null; systemctl is-active -q multi-user.target' >>"$log" 2>&1 ||
        unable "systemd does not come up in the container: $(tail -c 500 "$run/console"; printf "\n--- log\n"; tail -n 12 "$log")"
}

# The container's first process.
container_leader() {
    local nspawn
    nspawn=$(pgrep -P "$container" -f systemd-nspawn) && leader=$(pgrep -P "$nspawn" -o) && [ -n "$leader" ]
}

container_stop() {
    [ -n "$container" ] || return 0
    # As its own power button.
    kill -s RTMIN+4 "$leader" 2>/dev/null || true
    for _ in $(seq 60); do
        kill -0 "$container" 2>/dev/null || break
        sleep 0.5
    done
    kill -KILL "$leader" "$container" 2>/dev/null || true
    wait "$container" 2>/dev/null || true
    container=''
    rm -rf --one-file-system "$root"
}

in_container() {
    nsenter --target "$leader" --mount --uts --ipc --net --pid --cgroup --root --wd \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
        DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 bash -c "cd; set -euo pipefail; $1"
}

# on SCRIPT: runs it there as root, with bash.
on() { "in_$where" "$1"; }

# bring FILE…: copies them there, into /root.
bring() { "bring_$where" "$@"; }
bring_container() { cp "$@" "$root/root"; }
