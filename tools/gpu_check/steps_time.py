"""GPU time: ceilings, shares, neighbours that idle and come back, changes, latency. `bench share` measures.

Every case names what was granted, what came out, and by how much the two differ in percentage points of GPU
time, over the whole window and in the worst second of it. Calibrations (what a load does alone, without a
slice) are made once a run and kept in a file. Windows are as short as the whole list's six minutes want; three
runs merged (--merge) give medians and three times the seconds.
"""
import os

from common import step
from time_cases import Cases, at_least, at_most, shown

POINTS, SECOND_POINTS = 1.0, 2.0
TOTAL = 0.97
SHORT = "kernel-us=200"  # finer progress for what happens within 100 ms
LOADS = {"20us": "load=full,kernel-us=20,inflight=64", "1ms": "load=full", "50ms": "load=long",
         "graph": "load=graph", "step": "load=step,kernel-us=22", "mixed": "load=mixed"}


def limits(machine):
    """Error over the window and in one second, in points."""
    return (4.0, 6.0) if machine.sim else (POINTS, SECOND_POINTS)


def share(machine, slices, seconds, phases=(), allot=True, native=False, warm=1.0, settle=0.5, env=None):
    known = "calibrations.json" if env is None else "calibrations_elsewhere.json"
    line = [machine.bench, "share", "--json", "--seconds", seconds, "--warm", warm, "--settle", settle,
            "--calibration", os.path.join(machine.scratch, known)]
    for slice in slices:
        line += ["--slice", slice]
    for phase in phases:
        line += ["--phase", phase]
    line += machine.sim_words()
    if not allot:
        line.append("--no-allot")
    elif machine.level:
        line += ["--level", machine.level]
    if native:
        line.append("--native")
    total = (warm + seconds) * (2 if native else 1) + len(phases) * (seconds + settle)
    return machine.run(line, 40 + 2 * total, env=env).json()


def window(machine, full, quick):
    return quick if machine.quick else full


def ceilings(machine, name):
    maxima = (25, 75) if machine.quick else (10, 25, 50, 75)
    result = share(machine, [f"max={maxima[0]}," + LOADS[name]], window(machine, 3.2, 2),
                   [f"max={maximum}" for maximum in maxima[1:]])
    cases = Cases()
    cases.figures["result"] = result
    points, second_points = limits(machine)
    for maximum, phase in zip(maxima, result["phases"]):
        slice = phase["slices"][0]
        checks = [at_most("error", slice["max_error_points"], points),
                  at_most("second", slice["max_worst_second_points"], second_points)]
        if slice.get("settled_ms", -1) != -1:
            checks.append(at_most("change ms", slice["settled_ms"], 200))
        checks += clocks(phase, slice)
        cases.add(f"max {maximum} {name}", maximum, slice["judged"] * 100, *checks)
    return cases.done()


def clocks(phase, slice=None):
    out = []
    if slice is not None and slice.get("time_by_allot") is not None:
        out.append(shown("by allot", slice["time_by_allot"] * 100))
    if phase.get("clocks"):
        out.append(shown("MHz", phase["clocks"].get("sm_mhz")))
    return out


def split(phase):
    return ":".join(f"{slice['share_of_total'] * 100:.1f}" for slice in phase["slices"])


def share_case(machine, cases, name, granted, phase, first):
    points, second_points = limits(machine)
    checks = [at_most("mean error", phase.get("share_error_mean_points"), points),
              at_most("second", phase.get("share_worst_second_points"), second_points),
              at_least("total", phase["total_achieved"], 0.9 if machine.sim else TOTAL)]
    if not first:
        waits = [slice.get("settled_ms") for slice in phase["slices"]]
        checks.append(at_most("change ms", None if None in waits else max(waits), 200))
    cases.add(f"{name} {granted}", granted, split(phase), *checks, *clocks(phase))


def shares(machine, name):
    """Two slices: 50:50, then 30:70, then 10:90 while they run."""
    load = LOADS[name]
    splits = ("30:70",) if machine.quick else ("50:50", "30:70", "10:90")
    parts = [granted.split(":") for granted in splits]
    result = share(machine, [f"share={part},{load}" for part in parts[0]], window(machine, 3.2, 3),
                   [f"share={a}/share={b}" for a, b in parts[1:]])
    cases = Cases()
    cases.figures["result"] = result
    for i, (granted, phase) in enumerate(zip(splits, result["phases"])):
        share_case(machine, cases, name, granted, phase, i == 0)
    return cases.done()


def four(machine, name):
    parts = (10, 20, 30, 40)
    result = share(machine, [f"share={part},{LOADS[name]}" for part in parts], window(machine, 4, 3))
    cases = Cases()
    cases.figures["result"] = result
    share_case(machine, cases, name, "10:20:30:40", result["phases"][0], True)
    return cases.done()


def register(names, prefix, function, cost, quick=(), extra=False):
    """One step a load: a failing one costs its own figures only."""
    for name in names:
        step(f"t.{prefix}_{name}", "time", sim=name != "20us", cost=cost, quick=name in quick, extra=extra)(
            lambda machine, name=name: function(machine, name))


register(("1ms", "graph", "50ms", "step"), "share", shares, cost=16, quick=("1ms", "graph", "50ms", "step"))
register(("1ms", "graph", "50ms", "20us"), "max", ceilings, cost=18, quick=("1ms", "50ms"))
register(("1ms", "graph", "50ms", "step"), "four", four, cost=7, quick=("1ms",))
register(("mixed",), "share", shares, cost=17, extra=True)


def latency(machine, name):
    """A small request every 2 ms of a high-priority slice beside a low one that never stops."""
    neighbour = LOADS[name]
    result = share(machine, ["priority=high,load=request,period-us=2000", f"priority=low,{neighbour}"],
                   window(machine, 4, 3))
    cases = Cases()
    cases.figures["result"] = result
    request, low = result["phases"][0]["slices"]
    got, alone = request["waits"], request["waits_alone"]
    rest = 1 - request["gpu_time"]
    checks = [at_most("p99 ms", got["p99"], 1.25 * alone["p99"] + 0.15),
              at_least("low of rest", low["judged"] / rest if rest > 0 else 0, 0.7),
              shown("p50", got["p50"]), shown("p999", got["p999"]), shown("alone p50", alone["p50"]),
              shown("alone p99", alone["p99"])]
    if machine.sim:
        checks = [dict(check, kind="shown") for check in checks]
    cases.add(f"latency beside {name}", None, got["p99"], *checks)
    return cases.done()


register(("1ms", "50ms", "graph"), "latency", latency, cost=8, quick=("1ms", "50ms"))


@step("t.idle", "time", sim=True, cost=16, quick=True)
def idle_neighbour(machine):
    """First the neighbour only holds a context, then it works for 600 ms of each second."""
    result = share(machine, ["share=50,load=full," + SHORT,
                             f"share=50,load=bursty,busy-ms=600,idle-ms=400,from=5.2,{SHORT}"], 4, ["/"])
    cases = Cases()
    cases.figures["result"] = result
    busy = result["phases"][0]["slices"][0]["judged"]
    cases.add("idle neighbour", 50, busy * 100, at_least("of alone", busy, 0.95 if machine.sim else 0.99))
    back = result["phases"][1]["slices"][1].get("back_from_idle") or {}
    cases.add("back from idle", 50, back.get("median_ms"),
              at_most("median ms", back.get("median_ms"), 100), at_most("max ms", back.get("max_ms"), 100))
    return cases.done()


@step("t.change", "time", sim=True, cost=13, quick=True)
def live_change(machine):
    splits = ("50:50", "20:80", "70:30", "50:50", "10:90", "60:40")
    pairs = [granted.split(":") for granted in splits]
    result = share(machine, [f"share={part},load=full,{SHORT}" for part in pairs[0]], 1.5,
                   [f"share={a}/share={b}" for a, b in pairs[1:]], settle=0.3)
    cases = Cases()
    cases.figures["result"] = result
    for before, granted, phase in zip(splits, splits[1:], result["phases"][1:]):
        waits = [slice.get("settled_ms") for slice in phase["slices"]]
        cases.add(f"change {before}>{granted}", granted, split(phase),
                  at_most("ms", None if None in waits else max(waits), 200))
    return cases.done()


def against_native(machine, name, slice, factor):
    """Two of a kind at half the GPU each, against the driver's own slicing."""
    seconds = window(machine, 3, 2)
    native = share(machine, [slice, slice], seconds, allot=False)
    sliced = share(machine, ["share=50," + slice] * 2, seconds)
    ours, theirs = (result["phases"][0]["total_achieved"] for result in (sliced, native))
    cases = Cases()
    cases.figures.update({"native": native, "result": sliced})
    check = at_least("against native", ours / theirs if theirs else 0, factor)
    cases.add(f"pair {name}", "50:50", ours * 100, dict(check, kind="shown") if machine.sim else check,
              shown("native", theirs * 100))
    return cases.done()


@step("t.pair_step", "time", sim=True, cost=10, quick=True)
def pair_of_decode_loops(machine):
    return against_native(machine, "step", LOADS["step"], 1.1)


@step("t.pair_launch_bound", "time", sim=True, cost=10, extra=True)
def pair_of_launch_bound(machine):
    return against_native(machine, "launch-bound", "load=launch-bound", 1.0)


@step("t.pair_native", "time", sim=True, cost=21, extra=True)
def pairs_under_the_driver(machine):
    """Nothing of allot in it: what is to be compared with."""
    cases = Cases()
    for name in ("1ms", "graph", "50ms"):
        result = share(machine, [LOADS[name]] * 2, 3, allot=False)
        cases.figures[name] = result
        phase = result["phases"][0]
        cases.add(f"native pair {name}", None, phase["total_achieved"] * 100)
    return cases.done()
