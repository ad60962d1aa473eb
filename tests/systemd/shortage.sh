# shellcheck shell=bash disable=SC2016
# What only a machine with memory and a disk of its own can show.

shortage_points() {
    point "out of memory, it is ended and comes back, and the model stays" out_of_memory
    point "on a full disk it goes on serving, and takes models again when there is room" full_disk
    # As it does after each power cut.
    [ "$short" = true ] || point "after a reboot it serves by itself" reboots
}

# limit BYTES|infinity: of the service's memory, from its next start on.
limit() {
    on "mkdir -p /etc/systemd/system/recurved.service.d
        printf '[Service]\nMemoryHigh=infinity\nMemoryMax=$1\nMemorySwapMax=0\n' >/etc/systemd/system/recurved.service.d/memory.conf; systemctl daemon-reload"
}

out_of_memory() {
    limit 16M
    on '! timeout 60 systemctl restart recurved || sleep 3'
    there 60 'journalctl -u recurved -o cat --since -2min | grep -E "oom-kill|out of memory|OOM"'
    on 'journalctl -u recurved -o cat --since -2min | tail -n 20; systemctl is-active recurved.socket'
    on 'rm /etc/systemd/system/recurved.service.d/memory.conf; systemctl daemon-reload; systemctl restart recurved'
    there 60 'systemctl is-active recurved'
    answers
}

full_disk() {
    "$programs/agent-cli" export "$repository/deploy/demo-model" --weights int4 --out "$run/int4" --overwrite
    tar -C "$run" -czf "$run/int4.tar.gz" int4
    bring "$run/int4.tar.gz"
    on 'tar -xzf int4.tar.gz; (dd if=/dev/zero of=fill bs=1M || true) 2>/dev/null; (dd if=/dev/zero of=/var/lib/fill bs=4k || true) 2>/dev/null; df /'
    on "! agent-cli deploy int4 --on $socket >/run/said 2>&1; cat /run/said; grep -iE 'space|room' /run/said"
    answers
    on 'systemctl is-active recurved; rm fill /var/lib/fill'
    on "agent-cli deploy int4 --on $socket; agent-cli deploy /usr/share/recurve/demo-model --on $socket"
    answers
    figure "\"$(on 'tail -n 1 /run/said')\""
}

# rebooted ID: whether this is another boot than that one, and it is over.
rebooted() { on "[ \"\$(cat /proc/sys/kernel/random/boot_id)\" != $1 ] && systemctl is-system-running --wait"; }

reboots() {
    local before
    before=$(on 'cat /proc/sys/kernel/random/boot_id')
    on 'systemctl reboot' || true
    until_so 240 rebooted "$before"
    there 60 'systemctl is-active recurved'
    answers
}
