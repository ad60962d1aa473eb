"""Writes the names, versions, licences and notices of the crates that are linked into the programs.

    python3 deploy/debian/notices.py MANIFEST TARGET

Reads what cargo has on disk; notices that several crates share are written once.
"""

import json
import pathlib
import re
import subprocess
import sys

NOTICES = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def cargo(*words):
    command = ["cargo", *words, "--locked", "--offline", "--manifest-path", sys.argv[1]]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked():
    """Name and version of every crate from a registry that is linked in."""
    words = ["-p", "recurved", "-p", "agent-cli", "--target", sys.argv[2], "--edges", "normal", "--prefix", "none"]
    lines = cargo("tree", *words, "--format", "{p}").splitlines()
    found = (re.match(r"(\S+) v(\S+)(?! \(/)", line) for line in lines if " (/" not in line)
    return {match.groups() for match in found if match}


def main():
    packages = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", sys.argv[2]))["packages"]
    wanted = linked()
    crates = sorted((p for p in packages if (p["name"], p["version"]) in wanted), key=lambda p: (p["name"], p["version"]))
    if not crates:
        sys.exit("notices.py: no crates were found")
    shared = {}
    for crate in crates:
        name = f"{crate['name']} {crate['version']}"
        print(f"{name}: {crate['license'] or 'see its notices'}")
        folder = pathlib.Path(crate["manifest_path"]).parent
        for file in sorted(folder.iterdir()):
            if file.is_file() and NOTICES.match(file.name):
                text = file.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").strip()
                shared.setdefault(text, []).append(name)
    for text, names in shared.items():
        print(f"\n{'-' * 100}\n{', '.join(names)}:\n\n{text}")


main()
