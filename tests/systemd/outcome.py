"""Says what became of the requests of restless clients, its one argument; ends with 1 where one was refused, broken off or failed."""

import json
import sys

outcome = json.loads(sys.argv[1])
told = sum(outcome["retried"].values())
print(
    f"{outcome['answered']} answers, {outcome['cut_short']} cut short, {told} told to ask again, longest wait "
    f"{outcome['longest_wait_ms']} ms",
    end="",
)
wrong = {name: outcome[name] for name in ("refused", "broken", "failed") if outcome[name]}
if wrong:
    print(f", WRONG: {json.dumps(wrong)}", end="")
sys.exit(bool(wrong) or not outcome["answered"])
