# shellcheck shell=bash disable=SC2016
# On a Debian whose systemd is newer than the one that the unit is written for, with the drop-in for it.

newer_points() {
    need "the package is installed there, and the service is up" installs
    need "the demo model is deployed there and answers" deploys
    point "nothing is warned of there" no_warnings
    point "it has no rights there, and sees little" hardened
    point "without the drop-in, a doctor names it" doctor_names_the_drop_in
    need "the drop-in is taken" takes_the_drop_in
    point "a reload returns when the configuration is read" reload_is_waited_for
    [ "$short" = true ] || point "restarts under $(clients) clients refuse nobody there" restart_under_load
    point "one that fails again and again waits longer each time" waits_longer
}

doctor_names_the_drop_in() {
    on 'recurved doctor >~/found; grep systemd-254.conf ~/found'
    figure "$(on 'systemctl --version | head -n 1')"
}

# As the file itself says.
takes_the_drop_in() {
    on 'sed -n "s/^#   //p" /usr/share/recurve/systemd/systemd-254.conf | tee ~/steps; [ "$(wc -l <~/steps)" = 2 ]; . ~/steps
        systemd-analyze verify --man=no recurved.service; systemctl restart recurved
        [ "$(systemctl show -P Type recurved)" = notify-reload ]; recurved doctor >~/found; ! grep systemd-254.conf ~/found'
    answers
}

reload_is_waited_for() {
    on "for level in debug info debug info; do
            printf '[probation]\nseconds = 5\n[log]\nlevel = \"%s\"\n' \$level >/etc/recurve/recurved.toml
            systemctl reload recurved; agent-cli node describe --on $socket | grep -E \"log.level +\$level\"
        done
        printf '[probation]\nseconds = 5\n' >/etc/recurve/recurved.toml; systemctl reload recurved; systemctl is-active recurved"
    answers
}

waits_longer() {
    on "printf '[engine]\nslots = \"many\"\n' >/etc/recurve/recurved.toml; ! systemctl restart recurved"
    there 30 '[ "$(systemctl show -P NRestarts recurved)" -ge 2 ]'
    on 'systemctl show -P RestartUSecNext recurved >~/next; cat ~/next; [ "$(cat ~/next)" != 2s ]
        systemctl is-active recurved.socket; printf "[probation]\nseconds = 5\n" >/etc/recurve/recurved.toml; systemctl restart recurved'
    figure "$(on 'cat ~/next') before the next start"
    answers
}
