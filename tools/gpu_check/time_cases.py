"""Cases of the time checks: one figure against one promise, a line each; and medians over several runs.

A case keeps its checks as numbers (value, limit), so that a verdict can be made again from medians. `at_most`
compares the absolute value, `at_least` the value. A case without a limit is there to be read, not judged.
"""
import json
import os

from common import StepFailed, median


def at_most(what, value, limit):
    return {"what": what, "value": value, "limit": limit, "kind": "at_most"}


def at_least(what, value, limit):
    return {"what": what, "value": value, "limit": limit, "kind": "at_least"}


def shown(what, value):
    return {"what": what, "value": value, "limit": None, "kind": "shown"}


class Judge:
    """Checks on a card; on the software GPU, where a few CPUs do everything, the same to be read only."""

    def __init__(self, machine):
        self.at_least = (lambda what, value, _: shown(what, value)) if machine.sim else at_least
        self.at_most = (lambda what, value, _: shown(what, value)) if machine.sim else at_most


def holds(check):
    if check["kind"] == "shown":
        return True
    if check["value"] is None:
        return False
    if check["kind"] == "at_most":
        return abs(check["value"]) <= check["limit"]
    return check["value"] >= check["limit"]


def good(case):
    return all(holds(check) for check in case["checks"])


def check_text(check):
    value = "-" if check["value"] is None else f"{check['value']:.4g}"
    sign = {"at_most": "<=", "at_least": ">=", "shown": ""}[check["kind"]]
    return f"{check['what']} {value}" + (f"{sign}{check['limit']:.4g}" if sign else "")


def line(case):
    granted = "" if case["granted"] is None else f"{case['granted']}"
    achieved = "" if case["achieved"] is None else case["achieved"] if isinstance(case["achieved"], str) \
        else f"{case['achieved']:.2f}"
    return (f"{case['case']:<24} {granted:>12} {achieved:>16}  {'ok  ' if good(case) else 'MISS'}  "
            + "; ".join(check_text(check) for check in case["checks"])).rstrip()


HEADER = f"{'CASE':<24} {'GRANTED':>12} {'ACHIEVED':>16}  VERDICT"


class Cases:
    """Collects a step's cases; `figures` is what the step returns."""

    def __init__(self):
        self.figures = {"cases": []}

    def add(self, name, granted, achieved, *checks):
        self.figures["cases"].append({"case": name, "granted": granted, "achieved": achieved,
                                      "checks": list(checks)})

    def done(self):
        missed = [case["case"] + ": " + ", ".join(check_text(c) for c in case["checks"] if not holds(c))
                  for case in self.figures["cases"] if not good(case)]
        if missed:
            raise StepFailed("; ".join(missed), self.figures)
        return self.figures


def cases_of(groups, only=()):
    """All cases of the steps' figures, in order. groups: {group: [step rows]}; only: beginnings of steps' names."""
    return [case for rows in groups.values() for row in rows if not only or row["step"].startswith(only)
            for case in (row.get("figures") or {}).get("cases", [])]


def read_cases(folder, only=()):
    cases = []
    for name in sorted(os.listdir(folder)):
        if name.startswith("time") and name.endswith(".json") and not name.startswith("time_medians"):
            with open(os.path.join(folder, name)) as file:
                content = json.load(file)
            cases += cases_of({name: content["steps"]}, only)
    return cases


def merge(runs):
    """Medians of each number of each case over several lists of cases, in the order of the first list."""
    merged, seen = [], set()
    for case in (case for run in runs for case in run):
        if case["case"] in seen:
            continue
        seen.add(case["case"])
        same = [other for run in runs for other in run if other["case"] == case["case"]]
        checks = []
        for i, check in enumerate(case["checks"]):
            values = [other["checks"][i]["value"] for other in same if len(other["checks"]) > i]
            known = [value for value in values if value is not None]
            # A run in which it could not be said counts as the worst there is.
            enough = len(known) * 2 > len(values)
            checks.append({**check, "value": median(known) if enough else None, "runs": values})
        numbers = [other["achieved"] for other in same if isinstance(other["achieved"], (int, float))]
        merged.append({**case, "achieved": median(numbers) if numbers else case["achieved"],
                       "checks": checks, "repetitions": len(same)})
    return merged
