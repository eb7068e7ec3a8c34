"""Prints Autobahn's verdicts as a table, per group of cases; exits 1 if one failed. Python 2.7 and 3."""
from __future__ import print_function

import json
import sys

VERDICTS = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED"]

with open(sys.argv[1]) as report:
    cases = json.load(report)["roomcast"]

groups, failures = {}, []
for case, result in cases.items():
    # A case has two verdicts: on the messages, and on how the connection closed.
    verdicts = [result["behavior"], result["behaviorClose"]]
    failed = [v for v in verdicts if v not in VERDICTS[:-1]]
    verdict = "FAILED" if failed else result["behavior"]
    if failed:
        failures.append("%s: %s, close %s" % (case, verdicts[0], verdicts[1]))
    row = groups.setdefault(int(case.split(".")[0]), dict.fromkeys(VERDICTS, 0))
    row[verdict] += 1

print("| cases | " + " | ".join(VERDICTS) + " |")
print("|---|" + "---|" * len(VERDICTS))
for group in sorted(groups):
    print("| %d.* | " % group + " | ".join(str(groups[group][v]) for v in VERDICTS) + " |")
total = [sum(row[v] for row in groups.values()) for v in VERDICTS]
print("| all %d | " % len(cases) + " | ".join(map(str, total)) + " |")
for failure in sorted(failures):
    print("FAILED " + failure)
sys.exit(1 if failures or not cases else 0)
