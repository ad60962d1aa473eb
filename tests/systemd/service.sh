# shellcheck shell=bash disable=SC2016
# What the service does on a system with nothing else: from the installation to a restart under load. What is in single quotes is
# run there.

socket=unix:/run/recurve/recurved.sock
question='lock the garage door'
answer='{"device":"lock","zone":"garage","action":"lock"}'

service_points() {
    need "the package is installed, and the service is up" installs
    point "without a model it is ready, and says so" no_model
    need "the demo model is deployed and answers" deploys
    point "nothing is warned of" no_warnings
    point "systemctl status tells how it is in words" status_in_words
    point "the journal has fields" journal_fields
    point "it has no rights, and sees little" hardened
    point "idle, it takes little" idles
    point "a reload changes what can be changed and says what cannot" reloads
    point "a wrong configuration is named, and mended without a refused connection" wrong_configuration
    point "it is checked with the sockets that systemd holds for it" sockets_are_checked
    # The next one waits for that, too.
    [ "$short" = true ] || point "the watchdog leaves an idle daemon alone" idle_is_fed
    point "the watchdog ends a stuck engine, and it serves again" stuck_is_ended
    point "streams that outlast the grace end with what they have" grace_ends
    point "restarts under $(clients) clients refuse nobody" restart_under_load
}

install_for_machine() {
    need "installed in the machine" installs
    need "the demo model is deployed in the machine and answers" deploys
}

# there SECONDS SCRIPT: waits until the script succeeds there.
there() { until_so "$1" on "$2"; }

installs() {
    bring "$package" "$demo" "$programs/restless"
    on "apt-get install -y -q ./$(basename "$package")"
    on 'systemctl is-active recurved.service recurved.socket; systemctl is-enabled recurved.service recurved.socket
        id recurve; dpkg -V recurved; systemd-analyze verify --man=no recurved.service recurved.socket'
}

no_model() {
    there 60 'systemctl show -P StatusText recurved | grep "^no model yet"'
    on '! agent-cli generate "hello" 2>~/said; cat ~/said; grep "agent-cli deploy" ~/said'
}

deploys() {
    on "apt-get install -y -q ./$(basename "$demo")
        printf '[probation]\nseconds = 5\n' >/etc/recurve/recurved.toml; systemctl restart recurved
        agent-cli deploy /usr/share/recurve/demo-model --on $socket"
    answers
    # Afterwards nothing takes the model away that has nothing to do with it.
    there 60 'journalctl -u recurved -o cat --grep "model confirmed"'
}

no_warnings() {
    on 'journalctl -u recurved SYSLOG_IDENTIFIER=recurved -p warning -o cat --no-pager | tee ~/warned; [ ! -s ~/warned ]'
}

answers() { [ "$(on "agent-cli generate --temperature 0 --on $socket '$question'")" = "$answer" ]; }

status_in_words() {
    there 30 'systemctl show -P StatusText recurved | grep "^serving demo-model: idle$"'
    on './restless --clients 6 --seconds 6 127.0.0.1:50051 >/dev/null & sleep 1
        until systemctl show -P StatusText recurved | tee ~/status | grep -E "^serving demo-model: [0-9]+ streams?"; do sleep 0.3; done; wait'
    figure "\"$(on 'cat ~/status')\""
}

journal_fields() {
    on 'journalctl -u recurved -o json --no-pager' | python3 -c '
import json, sys
lines = [json.loads(line) for line in sys.stdin]
requests = [line for line in lines if "REQUEST_ID" in line and line.get("GRPC_STATUS") == "OK"]
assert requests, "no line of a request"
line = requests[-1]
assert line["PRIORITY"] == "6" and line["SYSLOG_IDENTIFIER"] == "recurved", line
assert line["BUNDLE"].startswith("sha256:"), line
assert any(line["MESSAGE"].startswith("ready") for line in lines)
print(sorted(line))'
}

hardened() {
    on 'systemd-analyze security --no-pager --threshold=15 recurved.service | tail -n 1
        pid=$(systemctl show -P MainPID recurved); cat /proc/$pid/status | grep -E "^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):" | tr "\t" " "
        grep -q "^CapBnd:.0000000000000000" /proc/$pid/status; grep -q "^NoNewPrivs:.1" /proc/$pid/status; grep -q "^Seccomp:.2" /proc/$pid/status
        [ "$(stat -c %U:%G:%a /var/lib/recurve /run/recurve/recurved.sock | tr "\n" " ")" = "recurve:recurve:700 root:recurve:660 " ]'
    figure "$(on 'systemd-analyze security --no-pager recurved.service | sed -n "s/.*Overall exposure level for recurved.service: \([0-9.]*\).*/exposure \1/p"')"
}

idles() {
    local taken seconds=30
    [ "$short" = false ] || seconds=10
    there 30 'systemctl show -P StatusText recurved | grep "idle$"'
    taken=$(on 'pid=$(systemctl show -P MainPID recurved); ticks() { cut -d ")" -f 2 /proc/$pid/stat | cut -d " " -f 13,14 | tr " " "+" | xargs -I{} sh -c "echo \$(({}))"; }
        before=$(ticks); sleep '$seconds'; after=$(ticks); echo "$((after - before)) $(sed -n "s/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p" /proc/$pid/status)"')
    figure "$(awk -v taken="$taken" -v s="$seconds" 'BEGIN { split(taken, t, " "); printf "%.2f %% of a core over %d s, %.1f MB of anonymous memory", t[1] / s, s, t[2] * 1024 / 1e6 }')"
    # Half a per cent of a core, in ticks of a hundredth of a second, where cores are real; 60 MB.
    [ "$where" = machine ] || [ "${taken% *}" -le $((seconds / 2)) ]
    [ "${taken#* }" -le 58593 ]
}

reloads() {
    on "printf '[probation]\nseconds = 5\n[log]\nlevel = \"debug\"\n[engine]\nslots = 3\n' >/etc/recurve/recurved.toml
        systemctl reload recurved"
    there 30 "agent-cli node describe --on $socket | grep -E 'log.level +debug'"
    there 30 'journalctl -u recurved -o cat --grep "needs a restart" | grep engine.slots'
    on "systemctl is-active recurved; printf '[probation]\nseconds = 5\n' >/etc/recurve/recurved.toml; systemctl reload recurved"
    answers
}

wrong_configuration() {
    on "printf '[engine]\nslots = \"many\"\n' >/etc/recurve/recurved.toml; ! systemctl restart recurved"
    there 30 'systemctl show -P StatusText recurved | grep "engine.slots"'
    on 'systemctl is-active recurved.socket; journalctl -u recurved -n 20 -o cat | grep "engine.slots"'
    # Whoever comes waits until it is mended, and nobody starts it again by hand. An emulated processor loads the model for longer
    # than a request waits for it: then it is told to ask again.
    on "ask() { agent-cli generate --temperature 0 --timeout 120s --on 127.0.0.1:50051 '$question' >~/late 2>&1; }
        ask & asked=\$!; sleep 5
        kill -0 \$asked; printf '[probation]\nseconds = 5\n' >/etc/recurve/recurved.toml; wait \$asked || [ '$where' = machine ]
        while grep 'ask again' ~/late; do sleep 1; ask || true; done"
    [ "$(on 'cat ~/late')" = "$answer" ]
    figure "started $(on 'systemctl show -P NRestarts recurved') times meanwhile"
}

# A socket that other machines can reach, by version 6 alone; what comes by version 4 is the daemon's own.
sockets_are_checked() {
    on 'mkdir -p /etc/systemd/system/recurved.socket.d
        printf "[Socket]\nBindIPv6Only=ipv6-only\nListenStream=[::]:50055\n" >/etc/systemd/system/recurved.socket.d/wide.conf
        systemctl daemon-reload
        recurved check-config >~/checked || [ $? = 78 ]; grep "other machines can reach \[::\]:50055" ~/checked
        recurved doctor >~/checked || [ $? = 78 ]; grep "other machines can reach \[::\]:50055" ~/checked
        recurved check-config --config /dev/null >~/checked; grep "without the addresses of recurved.socket (.*50055" ~/checked'
    on "printf 'insecure = true\nlisten = [\"0.0.0.0:50055\"]\n[trust]\nmode = \"off\"\n[probation]\nseconds = 5\n' >/etc/recurve/recurved.toml
        recurved check-config; systemctl stop recurved; systemctl restart recurved.socket
        # Who looks does not wake it.
        recurved doctor >~/checked || [ \$? = 69 ]; grep '50055 is held by systemd' ~/checked
        agent-cli doctor >~/checked || [ \$? = 1 ]; grep 'recurved.service is stopped' ~/checked
        sleep 1; [ \"\$(systemctl show -P ActiveState recurved)\" = inactive ]
        systemctl start recurved
        for address in 127.0.0.1 '[::1]'; do
            [ \"\$(agent-cli generate --temperature 0 --on \$address:50055 '$question')\" = '$answer' ]
        done"
    on "printf '[probation]\nseconds = 5\n' >/etc/recurve/recurved.toml; rm -r /etc/systemd/system/recurved.socket.d
        systemctl daemon-reload; systemctl stop recurved; systemctl restart recurved.socket; systemctl start recurved"
    answers
}

# watchdog SECONDS: its time, from now on.
watchdog() {
    on "mkdir -p /etc/systemd/system/recurved.service.d; printf '[Service]\nWatchdogSec=$1\n' >/etc/systemd/system/recurved.service.d/watchdog.conf
        systemctl daemon-reload; systemctl restart recurved"
}

idle_is_fed() {
    watchdog 4
    on 'pid=$(systemctl show -P MainPID recurved); sleep 13; [ "$(systemctl show -P MainPID recurved)" = "$pid" ]'
}

stuck_is_ended() {
    watchdog 4
    # The engine's thread alone is held (PTRACE_SEIZE, PTRACE_INTERRUPT), which an idle daemon does not mind; then somebody asks.
    on "pid=\$(systemctl show -P MainPID recurved)
        for task in /proc/\$pid/task/*; do [ \"\$(cat \$task/comm)\" = engine ] && engine=\${task##*/}; done
        perl -e 'my \$call = \`uname -m\` =~ /x86_64/ ? 101 : 117;
            syscall(\$call, 0x4206, \$ARGV[0] + 0, 0, 0) == 0 or die \"seize: \$!\"; syscall(\$call, 0x4207, \$ARGV[0] + 0, 0, 0) == 0 or die \"interrupt: \$!\";
            sleep 120' \$engine & holder=\$!
        sleep 9; [ \"\$(systemctl show -P MainPID recurved)\" = \$pid ]
        agent-cli generate --on $socket '$question' >/dev/null 2>&1 & asked=\$!
        timed_out() { journalctl -u recurved -o cat | grep 'Watchdog timeout'; }
        for _ in \$(seq 60); do timed_out && break; sleep 0.5; done
        # A thread that is held stays until it is let go.
        kill \$holder; timed_out
        for _ in \$(seq 60); do [ \"\$(systemctl show -P MainPID recurved)\" = \$pid ] || break; sleep 0.5; done
        [ \"\$(systemctl show -P MainPID recurved)\" != \$pid ]; wait \$asked || true"
    there 60 'systemctl is-active recurved'
    answers
    on 'rm /etc/systemd/system/recurved.service.d/watchdog.conf; systemctl daemon-reload; systemctl restart recurved'
}

# How many clients there are: as many as an emulated processor answers within the minute that they wait.
clients() { if [ "$where" = machine ]; then echo 4; else echo 50; fi; }

# under_load SECONDS SCRIPT: runs the script there while clients ask again and again, each on new connections to both sockets.
# Nobody may be refused or broken off, and what is not answered must say when to ask again.
under_load() {
    local outcome
    outcome=$(on "./restless --clients $(clients) --seconds $1 127.0.0.1:50051 $socket >~/outcome & clients=\$!
        sleep 2; { $2; } >~/meanwhile 2>&1; wait \$clients; cat ~/outcome")
    echo "$outcome"
    python3 "$here/outcome.py" "$outcome" >&3
}

restart_under_load() {
    under_load 16 'for _ in 1 2 3 4; do systemctl restart recurved; sleep 2; done'
    on 'systemctl is-active recurved.service recurved.socket'
}

# Streams without an end, and a second for them.
grace_ends() {
    on "printf '[probation]\nseconds = 5\n[shutdown]\ngrace = 1\n' >/etc/recurve/recurved.toml; systemctl restart recurved"
    on "./restless --clients 3 --endless --seconds 6 127.0.0.1:50051 >~/outcome & clients=\$!; sleep 2; systemctl restart recurved; sleep 3
        systemctl restart recurved; wait \$clients"
    on 'cat ~/outcome' | tee /dev/stderr | python3 -c 'import json, sys; o = json.load(sys.stdin); sys.exit(not o["cut_short"] or bool(o["broken"] or o["failed"] or o["refused"]))'
    figure "$(on 'cat ~/outcome' | python3 -c 'import json, sys; o = json.load(sys.stdin); print(o["cut_short"], "streams cut short with finish reason SHUTDOWN, 0 broken", end="")')"
    on "printf '[probation]\nseconds = 5\n' >/etc/recurve/recurved.toml; systemctl restart recurved"
}
