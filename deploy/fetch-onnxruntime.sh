#!/usr/bin/env bash
# Fetches the ONNX Runtime library that Recurve is tested with, checks its digest, and puts it where daemon and tests look.
#
#   deploy/fetch-onnxruntime.sh [--arch x86_64|aarch64] [--to FOLDER] [--wheel FILE]
#
#   --arch   the machine it is for (default: this one)
#   --to     where to put it (default: .cache/onnxruntime in the repository; .cache/onnxruntime-ARCH for another machine)
#   --wheel  take it from this file, fetched elsewhere, instead of the network
#
# Does nothing when the right library is already there. The version is pinned: wheels from 1.29 on contain active telemetry.
set -euo pipefail

version=1.28.0

die() { printf 'fetch-onnxruntime.sh: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '2,11s/^# \{0,1\}//p' "$0"; }

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
machine=$(uname -m)
arch=$machine to='' wheel=''
while [ $# -gt 0 ]; do
    case $1 in
        --arch) arch=${2:?--arch needs x86_64 or aarch64}; shift 2 ;;
        --to) to=${2:?--to needs a folder}; shift 2 ;;
        --wheel) wheel=${2:?--wheel needs a file}; shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; die "unknown argument '$1'" ;;
    esac
done
case $arch in
    x86_64 | amd64)
        arch=x86_64
        wheel_sha256=0a83bdb70d143cede762b677789bf2a7acca54b3fb82565601d5c30695aa933c
        library_sha256=aa4079d18f4ea7a5f3a94d80cd4bbe0f2740436626622d64d793803a20381083
        ;;
    aarch64 | arm64)
        arch=aarch64
        wheel_sha256=4e81a23df16e7acb9d51b06d30cc098e49315ef9180f97bc2221d167b4b04d9c
        library_sha256=23a37c2994bc273e1d59a4f49af6cba5bf1cfbc29f04907ec27df375aba50a7d
        ;;
    *) die "no pinned library for '$arch': there is one for x86_64 and one for aarch64. Build ONNX Runtime $version or later for it and set ORT_DYLIB_PATH to its libonnxruntime.so" ;;
esac
if [ -z "$to" ]; then
    to=$repository/.cache/onnxruntime
    [ "$arch" = "$machine" ] || to=$to-$arch
fi

digest() { sha256sum "$1" | cut -d ' ' -f 1; }
library=$to/libonnxruntime.so
if [ -f "$library" ] && [ "$(digest "$library")" = "$library_sha256" ]; then
    echo "ONNX Runtime $version for $arch is already at $library"
    exit 0
fi

command -v python3 >/dev/null || die "python3 is needed; on Debian: apt-get install python3 python3-pip"
mkdir -p "$to"
work=$(mktemp -d "$to/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
if [ -z "$wheel" ]; then
    python3 -m pip --version >/dev/null 2>&1 || die "Python's pip is needed; on Debian: apt-get install python3-pip"
    echo "fetching ONNX Runtime $version for $arch"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
        --platform "manylinux_2_28_$arch" --dest "$work" "onnxruntime==$version" ||
        die "pip could not fetch onnxruntime $version. Without a network: fetch the wheel for manylinux_2_28_$arch elsewhere and give it with --wheel FILE"
    wheel=$(echo "$work"/*.whl)
fi
[ -f "$wheel" ] || die "$wheel: no such file"
found=$(digest "$wheel")
[ "$found" = "$wheel_sha256" ] || die "$wheel: is not onnxruntime $version for $arch (Python 3.12): its SHA-256 is $found, pinned is $wheel_sha256"
python3 - "$wheel" "$work" "$version" <<'PYTHON'
import sys, zipfile
wheel, out, version = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for member, name in ((f"onnxruntime/capi/libonnxruntime.so.{version}", "libonnxruntime.so"), ("onnxruntime/LICENSE", "LICENSE"), ("onnxruntime/ThirdPartyNotices.txt", "ThirdPartyNotices.txt")):
        with open(f"{out}/{name}", "wb") as file:
            file.write(archive.read(member))
PYTHON
found=$(digest "$work/libonnxruntime.so")
[ "$found" = "$library_sha256" ] || die "the library in $wheel has SHA-256 $found, pinned is $library_sha256"
chmod 755 "$work/libonnxruntime.so"
sync "$work/libonnxruntime.so"
mv "$work/LICENSE" "$work/ThirdPartyNotices.txt" "$to/"
mv "$work/libonnxruntime.so" "$library"
echo "ONNX Runtime $version for $arch is at $library"
