"""What allot promises of GPU time, for every kind of program beside every other: `bench share` runs, measures alone,
natively and in slices in the same call, and judges (bench/README.md, promises).

`./dev gpu-check time --only guarantee` runs the list in eight minutes; its parts run alone: `--only
guarantee_pairs_wait,guarantee_max`. `--repeat 3` runs it so often and judges the medians.
"""
from common import step
from steps_time import share
from time_cases import Cases, at_least, at_most, shown

KINDS = ("full", "wait", "request", "step", "launch-bound")
SECONDS, WARM, SETTLE = 2.2, 1.2, 0.8
CEILINGS = (20, 30, 50, 75)
# Mixes of four as they were seen to fail, and of others.
MIXES = {"busy": ("step:30", "wait:20", "full:10", "full:40"),
         "gaps": ("step:18", "launch-bound:40", "full:11", "full:31"),
         "waits": ("wait:25", "wait:25", "step:25", "request:25"),
         "five": ("request:10", "long:20", "step:20", "wait:25", "mixed:25")}


def percent(value):
    return "-" if value is None else f"{value * 100:.1f}"


def judged(machine, promise):
    check = (at_least if promise["kind"] == "at_least" else at_most)(promise["what"], promise["value"], promise["limit"])
    return dict(check, kind="shown") if machine.sim else check


def add_phase(machine, cases, phase, name=None):
    """A case a phase: what each slice was granted, its progress (natively too), its promises and its waits."""
    slices = phase["slices"]

    def granted(one):
        return f"{one['share'] or 0:g}" if one["max"] is None else f"max {one['max']:g}"

    name = name or " : ".join(f"{one['load']} {granted(one)}" for one in slices)
    got = ":".join(percent(one["achieved"]) for one in slices)
    checks = []
    for number, one in enumerate(slices):
        which = f"{one['load']}.{number} " if len(slices) > 1 else ""
        for promise in one["promises"]:
            checks.append(judged(machine, dict(promise, what=which + promise["what"])))
        if "native" in one:
            checks.append(shown(which + "natively %", one["native"]["achieved"] * 100))
            if one["native"]["waits"]:
                checks.append(shown(which + "natively p99 ms", one["native"]["waits"]["p99"]))
        if one["waits"]:
            checks += [shown(which + f"{mark} ms", one["waits"][mark]) for mark in ("p50", "p999", "max")]
    checks.append(shown("together %", phase["total_achieved"] * 100))
    if "native_total_achieved" in phase:
        checks.append(shown("natively together %", phase["native_total_achieved"] * 100))
    cases.add(name, ":".join(granted(one) for one in slices), got, *checks)


def measure(machine, slices, phases=(), native=True, seconds=SECONDS, names=None):
    result = share(machine, slices, seconds, phases, native=native, warm=WARM, settle=SETTLE)
    cases = Cases()
    cases.figures["result"] = result
    for number, phase in enumerate(result["phases"]):
        add_phase(machine, cases, phase, names and names[number])
    return cases.figures


def together(parts):
    cases = Cases()
    cases.figures["results"] = [part["result"] for part in parts]
    cases.figures["cases"] = [case for part in parts for case in part["cases"]]
    return cases.done()


def pairs(machine, kind):
    """This kind beside itself and each that comes after it: 50:50, then 30:70 and 70:30 while they run."""
    parts = []
    for other in KINDS[KINDS.index(kind):]:
        phases = ["share=30/share=70"] + (["share=70/share=30"] if other != kind else [])
        parts.append(measure(machine, [f"{kind}:50", f"{other}:50"], phases))
    return together(parts)


def mixes(machine):
    return together([measure(machine, list(slices), seconds=3, names=[f"mix {name}"])
                     for name, slices in MIXES.items()])


def ceilings(machine, beside=None):
    """Each load alone, or beside a full one with the rest of the shares, under falling and rising ceilings."""
    parts = []
    for kind in KINDS:
        more = ["full:70"] if beside else []
        maxima = (20, 50) if beside else CEILINGS
        phases = [f"max={maximum}" + ("/" if beside else "") for maximum in maxima[1:]]
        parts.append(measure(machine, [f"{kind},max={maxima[0]}" + (",share=20" if beside else "")] + more, phases,
                             native=False,
                             names=[f"max {maximum} {kind}" + (" beside full 70" if beside else "") for maximum in maxima]))
    return together(parts)


def requests(machine):
    """Small requests within their share beside what keeps the card busy in other ways."""
    parts = [measure(machine, ["request:30", f"{neighbour}:70"]) for neighbour in ("graph", "long")]
    parts.append(measure(machine, ["wait:30,host-us=2000", "full:70"]))
    return together(parts)


def step_stalls(machine):
    """Two decode loops for longer: how long each stands still."""
    return together([measure(machine, ["step:30", "step:70"], seconds=6, names=["step stalls 30:70"])])


for name, cost in zip(KINDS, (80, 62, 46, 30, 15)):
    step(f"t.guarantee_pairs_{name.partition('-')[0]}", "time_guarantee", sim=True, cost=cost, extra=True)(
        lambda machine, name=name: pairs(machine, name))
step("t.guarantee_mixes", "time_guarantee", sim=True, cost=46, extra=True)(mixes)
step("t.guarantee_max", "time_guarantee", sim=True, cost=72, extra=True)(ceilings)
step("t.guarantee_max_beside", "time_guarantee", sim=True, cost=42, extra=True)(lambda machine: ceilings(machine, True))
step("t.guarantee_requests", "time_guarantee", sim=True, cost=34, extra=True)(requests)
step("t.guarantee_stalls", "time_guarantee", sim=True, cost=20, extra=True)(step_stalls)
