#!/usr/bin/env bash
# Makes the Debian packages: `recurved` with the daemon, the command line, ONNX Runtime, units and manual pages, and
# `recurve-demo-model` with the exported demo model. Ends with a list of what is in them.
#
#   deploy/package.sh amd64|arm64 [--out FOLDER] [--version VERSION] [--twice] [--lint]
#
#   --out      where the packages go (default: target/debian)
#   --version  the packages' version (default: the one in Cargo.toml)
#   --twice    builds and packs a second time, from a copy in another folder, and fails unless both have the same bytes
#   --lint     has lintian look at the packages, and fails at errors
#
# Needs what deploy/demo.sh needs, and dpkg-dev; for arm64 on another machine also a cross compiler, its C library and qemu-user, by
# which the built programs write their manual pages. What is missing it installs as root or with CI=true; otherwise it says the
# command. With RECURVE_BIN_DIR=FOLDER it builds nothing and takes the programs for that architecture from the folder.
#
# Without rustup's target for arm64, Debian's packages rustc-web, cargo-web and libstd-rust-web-dev:arm64 are used.
set -euo pipefail

cargo_deb=3.8.0
# What the programs and the library ask of the system; checked against the symbols that they use.
glibc=2.34 glibcxx=3.4.21

die() { printf 'package.sh: %s\n' "$*" >&2; exit 1; }
step() { printf '== %s\n' "$*"; }
usage() { sed -n '2,17s/^# \{0,1\}//p' "$0"; }

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
arch='' out='' version='' twice=false lint=false
while [ $# -gt 0 ]; do
    case $1 in
        amd64 | arm64) [ -z "$arch" ] || die "one architecture at a time, not '$arch' and '$1'"; arch=$1; shift ;;
        --out) out=${2:?--out needs a folder}; shift 2 ;;
        --version) version=${2:?--version needs a version}; shift 2 ;;
        --twice) twice=true; shift ;;
        --lint) lint=true; shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; die "unknown argument '$1'" ;;
    esac
done
case $arch in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
    *) usage >&2; die "which architecture: amd64 or arm64?" ;;
esac
if [ "$twice" = true ] && [ -n "${RECURVE_BIN_DIR-}" ]; then
    die "--twice builds twice, and with RECURVE_BIN_DIR nothing is built: unset it"
fi
triple=$machine-unknown-linux-gnu
cross=false
[ "$(uname -m)" = "$machine" ] || cross=true
[ -n "$version" ] || version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version *= *"\(.*\)".*/\1/p' "$repository/Cargo.toml")
[[ $version =~ ^[0-9][0-9A-Za-z.+~]*$ ]] || die "'$version' is no version: it begins with a digit, and has letters, digits, '.', '+' and '~'"
target=${CARGO_TARGET_DIR:-$repository/target}
mkdir -p "$target" "${out:=$target/debian}"
target=$(cd "$target" && pwd) out=$(cd "$out" && pwd)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$repository" log -1 --format=%ct)}
export LC_ALL=C.UTF-8 TZ=UTC
umask 022

work=$(mktemp -d "${TMPDIR:-/tmp}/recurve-package-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# need TOOL PACKAGE…: the tool is there, or is installed where that is allowed.
need() {
    local tool=$1 as_root=()
    shift
    command -v "$tool" >/dev/null && return
    if [ "$(id -u)" != 0 ]; then
        [ "${CI-}" = true ] || die "missing: $tool; install it: sudo apt-get install $*"
        as_root=(sudo -n)
    fi
    step "Installing $*"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@" >"$work/apt" 2>&1 ||
        { "${as_root[@]}" apt-get update -q && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@"; } \
            >"$work/apt" 2>&1 || { cat "$work/apt" >&2; die "$tool could not be installed"; }
}

need dpkg-deb dpkg
need readelf binutils
need python3 python3 python3-pip
strip=strip emulated=()
if $cross; then
    need "$machine-linux-gnu-gcc" "gcc-$machine-linux-gnu" "libc6-dev-$arch-cross"
    need "qemu-$machine" qemu-user
    strip=$machine-linux-gnu-strip emulated=("qemu-$machine" -L "/usr/$machine-linux-gnu")
fi

# compile SOURCE TARGET: builds the programs for the architecture so that neither folder, nor that of the crates, is found in
# them. Prints the folder with the programs.
compile() {
    local source=$1 target=$2 home=${CARGO_HOME:-$HOME/.cargo} cargo=cargo folder=$2 pair rust='' c=''
    local build=(build --release --locked --manifest-path "$source/Cargo.toml" -p recurved -p agent-cli)
    # Of those that fit a path the last counts.
    local pairs=("$source=/usr/src/recurve" "$target=/usr/src/recurve/target" "$home=/usr/share/cargo")
    for pair in "$home"/registry/src/*; do pairs+=("$pair=/usr/share/cargo/registry"); done
    for pair in "${pairs[@]}"; do
        rust+="--remap-path-prefix=$pair"$'\x1f'
        c+="-ffile-prefix-map=$pair "
    done
    # A build id is made of the debug information, too, which is stripped, and which is not the same in two folders.
    rust+=-Clink-arg=-Wl,--build-id=none$'\x1f'
    local -x CARGO_ENCODED_RUSTFLAGS=${rust%?} CFLAGS=${c% } CXXFLAGS=${c% } CARGO_TARGET_DIR=$target
    if $cross; then
        local linker=CARGO_TARGET_${triple//-/_}_LINKER
        local -x "${linker^^}=$machine-linux-gnu-gcc"
        build+=(--target "$triple")
        folder=$target/$triple
        if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$triple/lib" ]; then
            if [ ! -x /usr/bin/rustc ] || [ ! -x /usr/bin/cargo ]; then
                die "no Rust for $triple: 'rustup target add $triple', or 'dpkg --add-architecture $arch && apt-get update && apt-get install rustc-web cargo-web libstd-rust-web-dev:$arch'"
            fi
            local -x RUSTC=/usr/bin/rustc
            cargo=/usr/bin/cargo
        fi
    fi
    "$cargo" "${build[@]}" >&2
    echo "$folder/release"
}

# Fails where a program or library asks for a newer system than the package's dependencies promise.
check_symbols() {
    local file needs
    for file in "$@"; do
        for needs in "GLIBC $glibc" "GLIBCXX $glibcxx"; do
            newest=$(readelf -VW "$file" | grep -o "\<${needs% *}_[0-9.]*" | cut -d _ -f 2 | sort -Vu | tail -n 1) || true
            [ "$(printf '%s\n%s\n' "${newest:-0}" "${needs#* }" | sort -V | tail -n 1)" = "${needs#* }" ] ||
                die "$file needs ${needs% *} $newest, and the package promises ${needs#* }: raise it in daemon/Cargo.toml and here"
        done
    done
}

changelog() {
    printf '%s (%s) stable; urgency=medium\n\n  * Version %s.\n\n -- %s  %s\n' "$1" "$version" "$version" "$maintainer" \
        "$(date -R -u -d "@$SOURCE_DATE_EPOCH")"
}

# stage PROGRAMS: puts everything that goes into the packages into the folder that daemon/Cargo.toml names.
stage() {
    local programs=$1 file shell
    rm -rf "$stage"
    mkdir -p "$stage/bin" "$stage/man" "$stage/completions" "$stage/doc"
    for file in recurved agent-cli; do
        [ -f "$programs/$file" ] || die "$programs/$file: no such program"
        readelf -h "$programs/$file" | grep -qi "machine:.*${machine/_/.}" || die "$programs/$file: not a program for $arch"
        "$strip" --strip-all -o "$stage/bin/$file" "$programs/$file"
    done
    cp "$library/libonnxruntime.so" "$stage/"
    check_symbols "$stage/bin/recurved" "$stage/bin/agent-cli" "$stage/libonnxruntime.so"
    "${emulated[@]}" "$stage/bin/agent-cli" man "$stage/man"
    "${emulated[@]}" "$stage/bin/recurved" man "$stage/man"
    "${emulated[@]}" "$stage/bin/recurved" config-template >"$stage/recurved.toml"
    for shell in bash zsh fish; do "${emulated[@]}" "$stage/bin/agent-cli" completions "$shell" >"$stage/completions/$shell"; done
    cp "$library/ThirdPartyNotices.txt" "$stage/doc/onnxruntime-notices.txt"
    python3 "$repository/deploy/debian/notices.py" "$repository/Cargo.toml" "$triple" >"$stage/doc/crates.txt"
    # The licence's own lines are indented, and empty ones marked, as the format of the file asks.
    sed 's/\r$//; s/^$/./; s/^/ /' "$library/LICENSE" >"$work/license"
    sed -e "/@ONNXRUNTIME_LICENSE@/{r $work/license" -e 'd}' "$repository/deploy/debian/copyright" >"$stage/doc/copyright"
    changelog recurved >"$stage/doc/changelog"
    gzip -9n "$stage/doc/changelog" "$stage/doc/onnxruntime-notices.txt" "$stage/doc/crates.txt"
}

# pack_daemon FOLDER: the package of the programs, from what was staged.
pack_daemon() {
    PATH=$tools/bin:$PATH cargo deb --quiet --no-build --no-strip --manifest-path "$repository/Cargo.toml" -p recurved \
        --target "$triple" --deb-version "$version" --output "$1/recurved_${version}_$arch.deb" >/dev/null
}

# pack_model FOLDER: the package of the demo model, which is only data.
pack_model() {
    local root=$work/model doc=$work/model/usr/share/doc/recurve-demo-model
    rm -rf "$root"
    mkdir -p "$root/DEBIAN" "$root/usr/share/recurve" "$doc"
    "${emulated[@]}" "$stage/bin/agent-cli" export "$repository/deploy/demo-model" --weights int8 \
        --out "$root/usr/share/recurve/demo-model" >"$work/export" 2>&1 || { cat "$work/export" >&2; die "the demo model could not be exported"; }
    chmod -R u=rwX,go=rX "$root/usr/share/recurve"
    cp "$repository/deploy/demo-model/README.md" "$doc/README.md"
    changelog recurve-demo-model | gzip -9n >"$doc/changelog.gz"
    # Without what is said of the programs.
    awk 'BEGIN { RS = ""; ORS = "\n\n" } NR <= 2 { sub(/\nComment:.*/, ""); print }' "$repository/deploy/debian/copyright" >"$doc/copyright"
    (cd "$root" && find usr -type f -printf '%P\0' | sort -z | sed -z 's,^,usr/,' | xargs -0 md5sum >DEBIAN/md5sums)
    cat >"$root/DEBIAN/control" <<CONTROL
Package: recurve-demo-model
Version: $version
Architecture: all
Maintainer: $maintainer
Installed-Size: $(du -sk --apparent-size "$root/usr" | cut -f 1)
Enhances: recurved
Section: misc
Priority: optional
Description: small model to try the Recurve model server with
 A RecurrentGemma of three million parameters with 8-bit weights, which turns
 sentences into commands for a house and tells of readings. It is a bundle:
 .
  sudo agent-cli deploy /usr/share/recurve/demo-model
CONTROL
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz --build "$root" "$1/recurve-demo-model_${version}_all.deb" >/dev/null
}

# packages SOURCE TARGET FOLDER: everything, from the source to both packages in the folder.
packages() {
    local programs=${RECURVE_BIN_DIR-}
    if [ -z "$programs" ]; then
        step "Building for $arch (the first time takes some minutes)"
        programs=$(compile "$1" "$2")
    fi
    step "Packing"
    stage "$programs"
    pack_daemon "$3"
    pack_model "$3"
}

# A second time, from a copy of the committed files and of changed ones, elsewhere.
again() {
    local file
    mkdir -p "$work/source" "$work/again"
    git -C "$repository" ls-files -z --cached --others --exclude-standard >"$work/files"
    tar -C "$repository" --null --ignore-failed-read -T "$work/files" -cf - | tar -C "$work/source" -xf -
    packages "$work/source" "$work/target" "$work/again"
    for file in "recurved_${version}_$arch.deb" "recurve-demo-model_${version}_all.deb"; do
        cmp "$work/once/$file" "$work/again/$file" || die "$file: two builds differ"
        echo "$file: the same bytes twice, SHA-256 $(sha256sum "$work/once/$file" | cut -d ' ' -f 1)"
    done
}

# list PACKAGE: its size, what it takes when it is installed, and its contents.
list() {
    printf '\n%s: %s bytes; installed %s KiB\n' "${1##*/}" "$(stat -c %s "$1")" "$(dpkg-deb -f "$1" Installed-Size)"
    dpkg-deb -c "$1" | awk '$1 !~ /^d/ { mode = $1; size = $3; sub(/^.* \.\//, "/"); printf "  %s %10d  %s\n", mode, size, $0 }'
}

tools=$repository/.cache/tools stage=$repository/.cache/package
maintainer=$(sed -n '/^\[package.metadata.deb\]/,$s/^maintainer *= *"\(.*\)"/\1/p' "$repository/daemon/Cargo.toml")
if [ "$("$tools/bin/cargo-deb" --version 2>/dev/null)" != "cargo-deb $cargo_deb" ]; then
    step "Installing cargo-deb"
    # Its dependencies are compiled without optimization: it runs for seconds.
    cargo install --quiet --debug --locked --force --root "$tools" cargo-deb --version "$cargo_deb"
fi
library=$repository/.cache/onnxruntime
! $cross || library=$library-$machine
"$repository/deploy/fetch-onnxruntime.sh" --arch "$machine" --to "$library"
# All of them, since cargo looks at all when it tells the notices of those that are linked in.
cargo fetch --quiet --locked --manifest-path "$repository/Cargo.toml"

# Not at once to where they go: cargo-deb removes what it finds in target/debian.
mkdir "$work/once"
packages "$repository" "$target/package" "$work/once"
if $twice; then
    step "Once more, elsewhere"
    again
fi
cp "$work/once/"*.deb "$out/"
if $lint; then
    need lintian lintian
    step "lintian"
    lintian --fail-on error --tag-display-limit 0 "$out/recurved_${version}_$arch.deb" "$out/recurve-demo-model_${version}_all.deb"
fi
list "$out/recurved_${version}_$arch.deb"
list "$out/recurve-demo-model_${version}_all.deb"
