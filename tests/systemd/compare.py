"""Compares what was acknowledged before a power cut with what the daemon knows after it.

    compare.py FOLDER ACKNOWLEDGED LAST BEGUN

FOLDER has models.json, audit.jsonl, gathered.db (before) and after.db. ACKNOWLEDGED: how many deployments were acknowledged; LAST:
the digest of the last of them; BEGUN: that of the one that was begun last, which may have been done or not. Ends with 1, and what is
missing, where something is.
"""

import json
import sqlite3
import sys

folder, acknowledged, last, begun = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
wrong = []

models = json.load(open(f"{folder}/models.json"))
models = models.get("models", models) if isinstance(models, dict) else models
active = [model["bundle"] for model in models if model.get("active")]
if last and active not in ([last], [begun]):
    wrong.append(f"active is {active}, acknowledged was {last}, begun {begun}")

lines = [json.loads(line) for line in open(f"{folder}/audit.jsonl")]
activated = sum(line["what"] == "activate" and line["result"] == "done" for line in lines)
if activated < acknowledged:
    wrong.append(f"the audit has {activated} activations, {acknowledged} deployments were acknowledged")

RECORDS = """
    SELECT device.store, sample.sequence, sample.first, sample.begin, sample.ended, sample.boot, sample.instance,
        (SELECT group_concat(line, ';') FROM (
            SELECT metric.name || series.attributes || coalesce(value.last, '') || ',' || coalesce(value.delta, '') AS line
            FROM value JOIN series ON series.id = value.series JOIN metric ON metric.id = series.metric
            WHERE value.sample = sample.id ORDER BY line))
    FROM sample JOIN device ON device.id = sample.device
"""


def records(file):
    try:
        with sqlite3.connect(f"file:{folder}/{file}?mode=ro", uri=True) as store:
            return {row[:2]: row[2:] for row in store.execute(RECORDS)}
    except sqlite3.OperationalError as error:
        raise SystemExit(f"{file}: {error}")


if not acknowledged:
    wrong.append("nothing was acknowledged, so that nothing can be lost")

before, after = records("gathered.db"), records("after.db")
missing = [key for key in before if key not in after]
changed = [key for key in before if key in after and before[key] != after[key]]
if not before:
    wrong.append("no record had been gathered")
if missing:
    wrong.append(f"{len(missing)} of {len(before)} records are missing, such as {missing[:3]}")
if changed:
    wrong.append(f"{len(changed)} records are not what they were, such as {changed[:3]}: {before[changed[0]]} {after[changed[0]]}")

print("; ".join(wrong) or f"{acknowledged} deployments, {len(before)} records of the history, {len(lines)} audit lines kept", end="")
sys.exit(bool(wrong))
