# shellcheck shell=bash
# Tools, packages, and the root file systems that they are installed into.

debian=bookworm
# Beside systemd: what the packages depend on, what talks to the machine, and what the walk-through of docs/install.md uses.
contents=systemd,systemd-sysv,dbus,libpam-systemd,init-system-helpers,iproute2,procps,ca-certificates,openssl,openssh-server,initramfs-tools,libstdc++6

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >>"$log" 2>&1; }

# QEMU comes from backports where qemu-utils does, since the two must have one version; the mirror is the one that apt has.
install_qemu() {
    local package=$1 from=$debian mirror
    if dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null | grep -q '~bpo'; then
        from=$debian-backports
        if ! apt-cache policy | grep -q "n=$from"; then
            mirror=$(apt-cache policy | sed -n "s|.* \(http[^ ]*\) $debian/main .*|\1|p" | head -n 1)
            printf 'deb %s %s main\n' "$mirror" "$from" >/etc/apt/sources.list.d/recurve-backports.list
            apt-get update -q >>"$log" 2>&1
        fi
    fi
    apt_install -t "$from" "$package"
}

# tool NAME COMMAND…: installs it by the command where it is missing.
tool() {
    local name=$1
    shift
    command -v "$name" >/dev/null && return
    echo "installing $name"
    "$@" || { apt-get update -q >>"$log" 2>&1 && "$@"; } || unable "$name is missing and cannot be installed: $log"
}

prepare_tools() {
    tool mmdebstrap apt_install mmdebstrap
    tool systemd-nspawn apt_install systemd-container
    tool mkfs.ext4 apt_install e2fsprogs
    tool ssh apt_install openssh-client
    tool script apt_install bsdutils
    tool qemu-system-x86_64 install_qemu qemu-system-x86
    [ "$board" = false ] || tool qemu-system-aarch64 install_qemu qemu-system-arm
    [ -f "$cache/key" ] || ssh-keygen -q -t ed25519 -N '' -C test -f "$cache/key"
}

# prepare_packages ARCH: the packages of that architecture, made unless those that are there are younger than the last commit.
prepare_packages() {
    local arch=$1 made committed
    version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version *= *"\(.*\)".*/\1/p' "$repository/Cargo.toml")
    package=$repository/target/debian/recurved_${version}_$arch.deb
    demo=$repository/target/debian/recurve-demo-model_${version}_all.deb
    committed=$(git -C "$repository" log -1 --format=%ct)
    made=$(stat -c %Y "$package" 2>/dev/null || echo 0)
    if [ "$made" -lt "$committed" ] || [ ! -f "$demo" ]; then
        echo "making the packages for $arch"
        "$repository/deploy/package.sh" "$arch" >>"$log" 2>&1 || die "deploy/package.sh $arch failed: $log"
    fi
    programs=${RECURVE_BIN_DIR:-$repository/target/release}
    [ -x "$programs/restless" ] || (cd "$repository" && cargo build --release --locked -p recurve-tests --bin restless) >>"$log" 2>&1
}

# prepare_image ARCH: a root file system with Debian's kernel, in .cache/vm/ARCH, made anew when its recipe changes.
prepare_image() {
    local arch=$1 dir=$cache/$1 kernel recipe
    kernel=linux-image-cloud-amd64
    [ "$arch" = amd64 ] || kernel=linux-image-arm64
    recipe="$debian $arch $contents $kernel 2"
    [ "$(cat "$dir/recipe" 2>/dev/null)" != "$recipe" ] || return 0
    echo "making the root file system for $arch (once; minutes)"
    rm -rf "$dir"
    mkdir -p "$dir"
    if [ "$arch" != "$(dpkg --print-architecture)" ]; then foreign "$arch"; fi
    # The initial RAM disk holds the drivers of QEMU's disk alone: with all modules, it takes half an hour under emulation.
    # shellcheck disable=SC2016
    bootstrap "$debian" "$dir" --arch="$arch" --include="$contents,$kernel" \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"' \
        --essential-hook='printf "MODULES=list\nCOMPRESS=gzip\n" >"$1/etc/initramfs-tools/conf.d/machine"' \
        --essential-hook='printf "virtio_pci\nvirtio_blk\next4\n" >"$1/usr/share/initramfs-tools/modules.d/machine"'
    if [ "$arch" != "$(dpkg --print-architecture)" ]; then no_foreign; fi
    cp "$dir/root"/boot/vmlinuz-* "$dir/vmlinuz"
    cp "$dir/root"/boot/initrd.img-* "$dir/initrd"
    truncate -s 3G "$dir/disk"
    mkfs.ext4 -q -F -d "$dir/root" "$dir/disk"
    rm -rf --one-file-system "$dir/root"
    echo "$recipe" >"$dir/recipe"
}

# prepare_root RELEASE: a root file system of another release for containers, in .cache/vm/RELEASE; without a kernel.
prepare_root() {
    local dir=$cache/$1 recipe="$1 $contents 1"
    [ "$(cat "$dir/recipe" 2>/dev/null)" != "$recipe" ] || return 0
    echo "making the root file system of Debian $1 (once)"
    rm -rf "$dir"
    mkdir -p "$dir"
    bootstrap "$1" "$dir" --include="$contents"
    rm -rf --one-file-system "$dir/root"
    echo "$recipe" >"$dir/recipe"
}

# bootstrap RELEASE FOLDER OPTION…: a Debian that is furnished, as a folder (root) and as a file (root.tar).
bootstrap() {
    local release=$1 dir=$2
    shift 2
    mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Languages "none"' "$@" "$release" "$dir/root.tar" >>"$log" 2>&1 ||
        unable "mmdebstrap failed: $log"
    mkdir "$dir/root"
    tar -C "$dir/root" -xf "$dir/root.tar"
    furnish "$dir/root"
    tar -C "$dir/root" -cf "$dir/root.tar" .
}

# Programs of another architecture run while its packages are configured; the registration is taken back by no_foreign.
registered=/proc/sys/fs/binfmt_misc/qemu-aarch64
foreign() {
    tool arch-test apt_install arch-test
    tool qemu-aarch64-static install_qemu qemu-user-static
    mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
    was_registered=true
    [ -e "$registered" ] || { was_registered=false; cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register; }
}
no_foreign() { [ "$was_registered" = true ] || echo -1 >"$registered"; }

# furnish ROOT: root comes in with the key of the test, the network asks for an address, and what nobody needs is off.
furnish() {
    local root=$1 unit home=$1/root
    passwd -q -R "$root" -d root
    echo gateway >"$root/etc/hostname"
    mkdir -p -m 700 "$home/.ssh"
    cp "$cache/key.pub" "$home/.ssh/authorized_keys"
    printf '[Match]\nName=eth*\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/10-any.network"
    ln -sf /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
    for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service dpkg-db-backup.timer \
        fstrim.timer systemd-networkd-wait-online.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
}
