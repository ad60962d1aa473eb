# shellcheck shell=bash disable=SC2016
# What becomes of a device when its packages change.

package_points() {
    need "a newer package under 50 clients refuses nobody" upgrades
    point "a changed configuration outlives the upgrade" conffile_is_kept
    point "an older package takes its place again, with all models" downgrades
    point "removed, it leaves what it kept; installed again, it serves that" removes
    point "purged, it is gone" purges
}

# The same contents with a higher version.
newer() {
    rm -rf "$run/newer"
    dpkg-deb -R "$package" "$run/newer"
    sed -i "s/^Version: .*/Version: $version+newer1/" "$run/newer/DEBIAN/control"
    dpkg-deb -Zgzip -z1 -b "$run/newer" "$run/recurved-newer.deb"
    rm -rf "$run/newer"
    bring "$run/recurved-newer.deb"
}

upgrades() {
    newer
    on 'printf "[probation]\nseconds = 5\n[engine]\nslots = 3\n" >/etc/recurve/recurved.toml
        systemctl show -P InvocationID recurved.socket >~/socket; systemctl show -P MainPID recurved >~/pid'
    under_load 20 'apt-get install -y -q ./recurved-newer.deb'
    on "dpkg-query -W -f '\${Version}' recurved | grep -F '+newer1'
        [ \"\$(systemctl show -P InvocationID recurved.socket)\" = \"\$(cat ~/socket)\" ]
        [ \"\$(systemctl show -P MainPID recurved)\" != \"\$(cat ~/pid)\" ]"
}

conffile_is_kept() {
    on "grep -q 'slots = 3' /etc/recurve/recurved.toml; agent-cli node describe --on $socket --format json | grep -q demo-model"
}

downgrades() {
    on "apt-get install -y -q --allow-downgrades ./$(basename "$package"); dpkg-query -W -f '\${Version}' recurved | grep -vF '+newer1'"
    there 60 'systemctl is-active recurved'
    answers
}

removes() {
    on 'apt-get remove -y -q recurved; for unit in socket service; do [ "$(systemctl show -P ActiveState recurved.$unit)" = inactive ]; done
        [ ! -e /run/recurve/recurved.sock ]; [ -d /var/lib/recurve/blobs ]; [ -f /etc/recurve/recurved.toml ]; [ "$(ss -ltn | grep -c :50051)" = 0 ]'
    on "apt-get install -y -q ./$(basename "$package")"
    there 60 'systemctl is-active recurved.service recurved.socket'
    answers
}

purges() {
    on 'apt-get purge -y -q recurved recurve-demo-model
        for left in /var/lib/recurve /etc/recurve /run/recurve /usr/lib/recurve /usr/bin/recurved /usr/share/recurve; do [ ! -e $left ] || { ls -laR $left; exit 1; }; done
        [ -z "$(find /etc/systemd /var/lib/systemd -name "*recurved*")" ]
        ! systemctl list-units --all --no-legend "recurved*" | grep -v not-found | grep .'
}
