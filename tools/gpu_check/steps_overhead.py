"""(g) What the shim adds to a call, and that the workloads run in and out of a slice."""
import warm
from common import expect, step

TARGET_LAUNCH_NS = 50
TARGET_ALLOC_FREE_NS = 500
TARGET_SYMBOL_NS = 1000


@step("g.hooks", "driver", sim=True)
def hooks(machine):
    warm.settled()
    command = [machine.bench, "hooks", "--json", "--seconds", "0.8"]
    figures = machine.run(machine.in_slice(command, memory="40G"), 90).json()
    figures["targets_ns"] = {"launch": TARGET_LAUNCH_NS, "alloc_free": TARGET_ALLOC_FREE_NS,
                             "cuGetProcAddress": TARGET_SYMBOL_NS}
    missed = []
    if figures["launch"]["added_ns"] > TARGET_LAUNCH_NS:
        missed.append(f"launch +{figures['launch']['added_ns']:.0f} ns")
    if figures.get("cuGetProcAddress", {}).get("added_ns", 0) > TARGET_SYMBOL_NS:
        missed.append(f"cuGetProcAddress +{figures['cuGetProcAddress']['added_ns']:.0f} ns")
    for entry in figures["live"]:
        for operation in ("alloc_free_4k", "churn"):
            added = entry[operation]["added_ns"]
            if added > TARGET_ALLOC_FREE_NS:
                missed.append(f"{operation} at {entry['live_blocks']} live blocks +{added:.0f} ns")
    expect(not missed, "above target: " + "; ".join(missed), figures)
    return figures


@step("g.load", "driver", sim=True)
def load(machine):
    """The same work in and out of a slice that limits memory only."""
    base = [machine.bench, "load", "--seconds", "2", "--json"]
    plain = machine.run(base + ["--kernel-us", "1000"], 60, bare=True).json()
    fixed = ["--iters", str(plain["iters"]), "--solo-us", str(plain["solo_us"])]
    sliced = machine.run(machine.in_slice(base + fixed, memory="8G"), 60).json()
    graph = machine.run(machine.in_slice(base + ["--graph", "--kernel-us", "200"], memory="8G"), 60).json()
    figures = {"plain": plain, "slice": sliced, "graph": graph}
    expect(plain["achieved"] > 0.5 and graph["achieved"] > 0.5, "a load alone did not fill the GPU", figures)
    figures["slower"] = 1 - sliced["achieved"] / plain["achieved"]
    if not machine.sim:
        expect(figures["slower"] <= 0.01, f"{figures['slower'] * 100:.1f} % slower in the slice", figures)
    return figures


@step("g.latency", "driver", sim=True)
def latency(machine):
    command = [machine.bench, "latency", "--seconds", "2", "--json"]
    figures = {"plain": machine.run(command, 60, bare=True).json()}
    fixed = ["--iters", str(figures["plain"]["iters"])]
    figures["slice"] = machine.run(machine.in_slice(command + fixed, memory="8G"), 60).json()
    for name, report in figures.items():
        expect(report["requests"] > 100, f"{name}: only {report['requests']} requests", figures)
        expect(report["p50"] <= report["p90"] <= report["p99"] <= report["p999"],
               f"{name}: percentiles out of order", figures)
    return figures
