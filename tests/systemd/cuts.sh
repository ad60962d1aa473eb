# shellcheck shell=bash disable=SC2016
# Power cuts: QEMU is killed while models are deployed and the history is written. What the daemon acknowledged has reached this
# machine by then; after each cut it is compared with what the daemon still knows.

# power_cuts N SEED
power_cuts() {
    local cut
    [[ "power cut" =~ $only && $1 -gt 0 ]] || return 0
    heading "power cuts: $1, seed $2 (--seed $2 repeats the instants)"
    RANDOM=$2
    "$programs/agent-cli" export "$repository/deploy/demo-model" --weights int8 --out "$run/a" --overwrite >>"$log" 2>&1
    "$programs/agent-cli" export "$repository/deploy/demo-model" --weights int4 --out "$run/b" --overwrite >>"$log" 2>&1
    machine_on amd64 new
    need "installed in a machine whose power will be cut" installs
    on "printf '[telemetry]\ninterval = 1\n[engine]\nkernels = \"recurve\"\n[probation]\nseconds = 5\n' >/etc/recurve/recurved.toml; systemctl restart recurved"
    : >"$run/acknowledged"
    for cut in $(seq "$1"); do
        work_begin
        # Up to twelve seconds after the first deployment of this round, in steps of a hundredth.
        if ! until_so 120 deployed_since "$(deployed)" >>"$log" 2>&1; then
            in_machine 'journalctl --no-pager -b -u recurved -o short-precise | tail -n 100' >>"$log" 2>&1 || true
            die "nothing is deployed: $log"
        fi
        sleep "$((RANDOM % 12)).$(printf %02d $((RANDOM % 100)))"
        machine_cut
        work_end
        machine_on amd64
        point "power cut $cut of $1: nothing acknowledged is lost" nothing_is_lost
    done
    machine_off
}

# forward: the daemon's socket on this machine, at $run/socket.
forward() {
    rm -f "$run/socket"
    ssh "${ssh_options[@]}" -o ExitOnForwardFailure=yes -N -L "$run/socket:/run/recurve/recurved.sock" -p "$port" root@127.0.0.1 &
    forwarder=$!
    until_so 30 test -S "$run/socket"
}
no_forward() {
    kill "$forwarder" 2>/dev/null || true
    wait "$forwarder" 2>/dev/null || true
}

# Two models are deployed in turn, and the history is gathered, until work_end.
work_begin() {
    forward >>"$log" 2>&1
    deploy_in_turn >>"$log" 2>&1 &
    deployer=$!
    gather_often >>"$log" 2>&1 &
    gatherer=$!
}
work_end() {
    touch "$run/enough"
    no_forward
    wait "$deployer" "$gatherer" 2>/dev/null || true
    rm -f "$run/enough"
}

# Begins with the one that was not acknowledged last: deploying what is served already would change nothing.
deploy_in_turn() {
    local model
    model=$(sed -n 's/^done //p' "$run/acknowledged" | tail -n 1)
    while [ ! -e "$run/enough" ]; do
        if [ "$model" = a ]; then model=b; else model=a; fi
        echo "begun $model" >>"$run/acknowledged"
        timeout 60 "$programs/agent-cli" deploy "$run/$model" --on "unix:$run/socket" || return 0
        echo "done $model" >>"$run/acknowledged"
    done
}

gather_often() {
    while [ ! -e "$run/enough" ]; do
        timeout 30 "$programs/agent-cli" telemetry --on "unix:$run/socket" --store "$run/gathered.db" --patience 5s || return 0
        sleep 1
    done
}

# How many deployments of another model than before were acknowledged, and whether it is more than N.
deployed() { grep '^done' "$run/acknowledged" | uniq | wc -l || true; }
deployed_since() { [ "$(deployed)" -gt "$1" ]; }

# The digest of $run/MODEL.
digest_of() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1] + "/index.json"))["manifests"][0]["digest"])' "$run/$1"; }

nothing_is_lost() {
    there 120 'systemctl is-active recurved'
    # Nothing but the power ended it.
    on '! journalctl --no-pager -u recurved -o short-precise | grep -a -B 20 -A 3 "Main process exited"'
    forward
    # Whatever happens, the tunnel is closed.
    local status=0
    compare || status=$?
    no_forward
    return "$status"
}

compare() {
    local cli=$programs/agent-cli on=(--on "unix:$run/socket") last begun kept
    last=$(sed -n 's/^done //p' "$run/acknowledged" | tail -n 1)
    begun=$(sed -n 's/^begun //p' "$run/acknowledged" | tail -n 1)
    "$cli" models "${on[@]}" --format json >"$run/models.json" || return
    "$cli" node audit "${on[@]}" --format json >"$run/audit.jsonl" || return
    # All that can be had, into a file of its own.
    rm -f "$run/after.db"*
    "$cli" telemetry "${on[@]}" --since 30d --store "$run/after.db" >/dev/null || return
    python3 "$here/compare.py" "$run" "$(deployed)" \
        "${last:+$(digest_of "$last")}" "${begun:+$(digest_of "$begun")}" >"$run/compared" || { cat "$run/compared"; return 1; }
    # The model that is there answers.
    if [ -n "$last" ]; then "$cli" generate "${on[@]}" --temperature 0 "$question" | grep -F '"device":"lock"' || return; fi
    kept=$(cat "$run/compared")
    figure "$kept"
}
