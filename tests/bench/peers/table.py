"""Puts the peers' reports together: one JSON file with date, processor and versions, and a table on standard output."""
import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import tomllib
from pathlib import Path

LOCK = Path(__file__).parent / "candle" / "Cargo.lock"
HEADINGS = ("peer", "model", "format", "measure", "tok/s", "quartiles", "GB of weights", "GB/s", "GB resident")


def processor():
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "CPU part"))]
    return {"name": names[0] if names else platform.machine(), "cores": os.cpu_count(), "architecture": platform.machine()}


def first_line(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def versions_of_candle():
    with open(LOCK, "rb") as lock:
        packages = tomllib.load(lock)["package"]
    return {p["name"]: p["version"] for p in packages if p["name"] in ("candle-core", "candle-transformers")}


def speeds(row):
    """Tokens per second of a row: its median and quartiles."""
    low, middle, high = statistics.quantiles(row["seconds"], n=4, method="inclusive")
    return {"median": row["tokens"] / middle, "low": row["tokens"] / high, "high": row["tokens"] / low}


def cells(report, row):
    speed = row["tokens_per_second"]
    what = f"prefill {row['tokens']}" if row["measure"] == "prefill" else f"decode at {row['position']:,}"
    if "note" in row:
        what += f", {row['note']}"
    read = report["weights_bytes"] / 1e9
    bandwidth = f"{read * speed['median']:.1f}" if row["measure"] == "decode" else "–"
    return (report["peer"], report["model"], report["format"], what, f"{speed['median']:.2f}",
            f"{speed['low']:.2f} – {speed['high']:.2f}", f"{read:.2f}", bandwidth, f"{report['resident_bytes'] / 1e9:.1f}")


def table(reports):
    """A Markdown table. GB/s is how fast the weights were read, every one once a step."""
    rows = [HEADINGS] + [cells(report, row) for report in reports for row in report["rows"]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("reports", nargs="+", type=Path)
    arguments.add_argument("--threads", type=int, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()
    reports = [json.loads(path.read_text()) for path in options.reports]
    for report in reports:
        report.setdefault("versions", versions_of_candle())
        for row in report["rows"]:
            row["tokens_per_second"] = speeds(row)
    summary = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "threads": options.threads,
        "load_average": os.getloadavg(),
        "tools": {"python": platform.python_version(), "rustc": first_line("rustc", "--version"),
                  "c++": first_line("c++", "--version"), "system": platform.platform()},
        "peers": reports,
    }
    options.out.write_text(json.dumps(summary, indent=1) + "\n")
    print(f"{summary['date']} · {summary['processor']['name']} · {options.threads} threads of {os.cpu_count()} cores")
    for report in reports:
        print(f"{report['peer']} {report['format']}: " + ", ".join(f"{k} {v}" for k, v in report["versions"].items()))
    print("\n" + table(reports) + f"\n\n{options.out}")


if __name__ == "__main__":
    main()
