"""What the edges of windows cost, in five minutes: the pairs, mixes and ceilings that came short on a card, each
measured three times in one start of its programs and judged by the medians, and two PyTorch programs.

`./dev gpu-check time --only edges`. Shares are judged within a point of what they promise, as in
steps_guarantee.py; what a card is known to make impossible (docs/limits.md) is judged as well.
"""
import os
import time

from common import StepFailed, expect, median, step
from steps_guarantee import judged, percent
from steps_time_torch import answers_of, end, ready, start, tell
from time_cases import Cases, at_least, shown

SECONDS, WARM, SETTLE, TIMES = 2.0, 1.2, 0.8, 3
LEARNS = 2.6  # seconds: NVML is asked once a second, and believed after two


def share(machine, slices, phases, seconds, settle, native):
    line = [machine.bench, "share", "--json", "--seconds", seconds, "--warm", WARM, "--settle", settle, "--calibration",
            os.path.join(machine.scratch, "calibrations.json"), *machine.sim_words()]
    line += [word for one in slices for word in ("--slice", one)]
    line += [word for one in phases for word in ("--phase", one)]
    line += ["--native"] if native else []
    total = (WARM + seconds) * (2 if native else 1) + len(phases) * (seconds + settle)
    return machine.run(line, 25 + 1.5 * total).json()


def numbers(phase):
    """Every figure of a phase by its name: (value, promise or None)."""
    found = {}
    for number, one in enumerate(phase["slices"]):
        which = f"{one['load']}.{number} " if len(phase["slices"]) > 1 else ""
        found[which + "of alone"] = (one["achieved"] * 100, None)
        for promise in one["promises"]:
            found[which + promise["what"]] = (promise["value"], promise)
        if one["waits"]:
            for mark in ("p50", "p99", "max"):
                found.setdefault(f"{which}wait {mark} ms", (one["waits"][mark], None))
        if "native" in one:
            found[which + "natively"] = (one["native"]["achieved"] * 100, None)
    return found


def add(machine, cases, name, phases):
    """One case of phases with the same grants: the median of each figure."""
    all_numbers = [numbers(phase) for phase in phases]
    checks = []
    for what, (_, promise) in all_numbers[0].items():
        values = [each[what][0] for each in all_numbers if what in each]
        if promise:
            checks.append(dict(judged(machine, dict(promise, what=what, value=median(values))), runs=values))
        else:
            checks.append(dict(shown(what, median(values)), runs=values))
    got = ":".join(percent(median([phase["slices"][i]["achieved"] for phase in phases]))
                   for i in range(len(phases[0]["slices"])))
    cases.add(name, None, got, *checks)


def measure(machine, cases, name, slices, changes=(), times=TIMES, settle=SETTLE, native=False):
    """The slices as they are, then after each change while they run."""
    phases = [""] * (times - 1)
    keep = "/" * (len(slices) - 1)
    for change in changes:
        phases += [change] + [keep] * (times - 1)
    phases = [phase or keep for phase in phases]
    result = share(machine, slices, phases, SECONDS, settle, native)
    cases.figures.setdefault("results", []).append(result)
    for i, change in enumerate(("",) + tuple(changes)):
        add(machine, cases, f"{name} {change}".strip(), result["phases"][i * times:(i + 1) * times])


def collected(*runs):
    """A step of several measurements: one that fails costs its own figures only."""

    def run(machine):
        cases, errors = Cases(), []
        for one in runs:
            try:
                measure(machine, cases, **one)
            except StepFailed as failure:
                errors.append(f"{one['name']}: {failure}")
        try:
            figures = cases.done()
        except StepFailed as failure:
            raise StepFailed("; ".join(errors + [str(failure)]), failure.figures) from failure
        expect(not errors, "; ".join(errors), figures)
        return figures

    return run


EDGES = {
    "beside_full": (46, [
        {"name": "step beside full", "slices": ["step:30", "full:70"], "changes": ["share=70/share=30"]},
        {"name": "launch-bound beside full", "slices": ["launch-bound:30", "full:70"], "times": 2},
        {"name": "halves", "slices": ["step:50", "full:50"], "times": 2}]),
    "ceilings": (48, [
        {"name": "step ceiling", "slices": ["step,max=30"], "changes": ["max=50", "max=75"], "times": 2},
        {"name": "launch-bound ceiling", "slices": ["launch-bound,max=50"], "changes": ["max=30", "max=20"], "times": 2,
         "settle": LEARNS}]),
    "mixes": (42, [
        {"name": "mix busy", "slices": ["step:30", "wait:20", "full:10", "full:40"]},
        {"name": "mix gaps", "slices": ["step:18", "launch-bound:40", "full:11", "full:31"], "times": 2},
        {"name": "mix waits", "slices": ["wait:25", "wait:25", "step:25", "request:25"], "times": 2},
        {"name": "mix five", "slices": ["request:10", "long:20", "step:20", "wait:25", "mixed:25"]}]),
    "ceilings_beside": (36, [
        {"name": "wait max beside full", "slices": ["wait:20,max=20", "full:70"], "times": 2},
        {"name": "request max beside full", "slices": ["request:20,max=20", "full:70"], "times": 2},
        {"name": "step max beside full", "slices": ["step:20,max=20", "full:70"], "times": 2},
        {"name": "launch-bound max beside full", "slices": ["launch-bound:20,max=20", "full:70"], "times": 2}]),
    "gaps": (42, [
        {"name": "two requests", "slices": ["request:50", "request:50"], "times": 2},
        {"name": "wait and request", "slices": ["wait:50", "request:50"], "times": 2},
        {"name": "two waits", "slices": ["wait:50", "wait:50"], "times": 2},
        {"name": "two launch-bound", "slices": ["launch-bound:50", "launch-bound:50"], "times": 2, "native": True},
        {"name": "request beside full", "slices": ["request:30", "full:70"], "times": 1}]),
    "steps": (20, [
        {"name": "two steps", "slices": ["step:30", "step:70"], "times": 2, "native": True},
        {"name": "two full", "slices": ["full:30", "full:70"], "times": 1},
        {"name": "wait and full", "slices": ["wait:50", "full:50"], "times": 1}]),
}

for part, (cost, measurements) in EDGES.items():
    step(f"t.edges_{part}", "time_edges", sim=True, cost=cost, extra=True)(collected(*measurements))


def together(processes, kinds, seconds):
    begin = time.monotonic() + 0.05
    for process, kind in zip(processes, kinds):
        tell(process, kind, begin, seconds)
    return [answer["rate"] for answer in answers_of(processes, seconds, " and ".join(kinds))]


@step("t.edges_torch", "time_edges", needs=("torch",), cost=60, extra=True)
def torch_pairs(machine):
    """A training that keeps the card busy beside a small decode loop that waits for every token."""
    kinds, names = ("train", "generate"), ("gpu-check-torch-0", "gpu-check-torch-1")
    processes = start(machine, 2, flags=("--gpu-share", "50"))
    cases = Cases()
    try:
        ready(processes)
        for process, kind in zip(processes, kinds):
            together([process], [kind], 1.5)
        alone = [together([process], [kind], 2)[0] for process, kind in zip(processes, kinds)]
        cases.figures["alone"] = alone
        for shares in ((50, 50), (30, 70), (70, 30)):
            order = sorted(range(2), key=lambda i: shares[i])  # the one that falls first
            for i in order:
                changed = machine.run([machine.allot, "set", names[i], "--gpu-share", shares[i]], 10)
                expect(changed.status == 0, f"allot set: {changed.err[-300:]}", cases.figures)
            together(processes, kinds, 1.5)  # seen by the agents
            runs = [together(processes, kinds, 2) for _ in range(TIMES)]
            got = [median([run[i] / alone[i] * 100 for run in runs]) for i in range(2)]
            checks = [at_least(f"{kind} of alone %", value, granted - 1)
                      for kind, value, granted in zip(kinds, got, shares)]
            cases.figures[f"rates {shares}"] = runs
            cases.add("train : generate", f"{shares[0]}:{shares[1]}", f"{got[0]:.1f}:{got[1]:.1f}", *checks)
    finally:
        end(processes)
    return cases.done()
