# shellcheck shell=bash
# A virtual machine: a kernel, memory and a disk of its own, and a plug that can be pulled.

machine='' # process of QEMU
ssh_options=(-i "$cache/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=10
    -o ServerAliveInterval=5 -o ServerAliveCountMax=12)

# machine_on ARCH [new]: boots the disk of the run, or a new one.
machine_on() {
    where=machine
    disk=$run/$1.disk
    : >"$run/console"
    if [ "${2-}" = new ]; then cp --sparse=always "$cache/$1/disk" "$disk"; fi
    port=$(free_port)
    local common=(-display none -monitor none -m 2048 -smp 2 -kernel "$cache/$1/vmlinuz" -initrd "$cache/$1/initrd"
        -serial "file:$run/console")
    local network=user,hostfwd=tcp:127.0.0.1:$port-:22
    case $1 in
        amd64)
            # Without FMA: QEMU 10.0 reads 16 bytes of memory for vfmadd231ss, which has 4, and whoever computes with the last
            # values of a mapping is ended by SIGSEGV there.
            qemu-system-x86_64 -accel tcg,thread=multi -cpu max,fma=off "${common[@]}" \
                -append "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet" \
                -drive "file=$disk,format=raw,if=virtio,cache=writeback" -nic "$network,model=virtio-net-pci" >>"$log" 2>&1 &
            ;;
        arm64)
            qemu-system-aarch64 -M virt -accel tcg,thread=multi -cpu cortex-a76 "${common[@]}" \
                -append "root=/dev/vda rw console=ttyAMA0 net.ifnames=0 quiet" \
                -drive "file=$disk,format=raw,if=none,id=disk,cache=writeback" -device virtio-blk-pci,drive=disk \
                -netdev "$network,id=net" -device virtio-net-pci,netdev=net >>"$log" 2>&1 &
            ;;
    esac
    machine=$!
    until_so 240 in_machine 'systemctl is-system-running --wait >/dev/null; systemctl is-active -q multi-user.target' >>"$log" 2>&1 ||
        die "the machine does not come up: $(tail -c 500 "$run/console")"
}

# A port of this machine that nobody has.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

in_machine() {
    ssh "${ssh_options[@]}" -p "$port" root@127.0.0.1 \
        "export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8; bash -c $(printf %q "set -euo pipefail; $1")"
}

bring_machine() { scp -q "${ssh_options[@]}" -P "$port" "$@" root@127.0.0.1:; }

# Power is cut: nothing is written any more.
machine_cut() {
    kill -KILL "$machine"
    wait "$machine" 2>/dev/null || true
    machine=''
}

# It shuts down as it should.
machine_off() {
    [ -n "$machine" ] || return 0
    in_machine 'systemctl poweroff' >/dev/null 2>&1 || true
    for _ in $(seq 120); do
        kill -0 "$machine" 2>/dev/null || break
        sleep 0.5
    done
    kill -KILL "$machine" 2>/dev/null || true
    wait "$machine" 2>/dev/null || true
    machine=''
}
