"""(a) the cap against NVML's own figure, (j) racing processes, (k) killed processes.

The judge is NVML's per-process figure, sampled outside every slice: it contains what no call shows,
contexts and modules too. over_bytes = highest physical use - limit must never be above 0;
shortfall_bytes = limit - highest physical use says how much of a slice a program cannot use, and must
stay within one granule of the allocator that is asked.
"""
import json
import os
import signal

from common import GIB, MIB, expect, median, step, stop, wait_for_line
from sampler import Sampler

OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"


def figures_of(sampler, group, limit, report):
    highest = sampler.highest(group)
    return {"limit_bytes": limit, "max_physical_bytes": highest, "over_bytes": highest - limit,
            "shortfall_bytes": limit - highest, "samples": sampler.result.get("samples", 0),
            "longest_gap_ms": sampler.result.get("longest_gap_ms"),
            "other_bytes": sampler.highest("other"), **(report or {})}


def check_cap(figures, granule):
    expect(figures["samples"] >= 3, "NVML was sampled fewer than three times", figures)
    expect(figures["max_physical_bytes"] > 0, "NVML never showed the slice", figures)
    expect(figures["over_bytes"] <= 0, f"{figures['over_bytes']} bytes over the cap", figures)
    if granule is not None:
        expect(figures["shortfall_bytes"] <= granule,
               f"{figures['shortfall_bytes']} bytes of the slice cannot be used, "
               f"more than a granule of {granule}", figures)


def fill_slice(machine, command, limit, timeout=60, env=None):
    with Sampler(machine) as sampler:
        process = machine.start(machine.in_slice(command, memory=limit), env=env)
        sampler.group("slice", process.pid)
        ran = machine.finish(process, timeout)
    figures = figures_of(sampler, "slice", limit, None)
    figures["exit_status"] = ran.status
    report = ran.json()
    figures["program"] = report
    return figures


def bench_fill(machine, kind, granule, step_bytes, limit=4 * GIB, more=()):
    figures = fill_slice(machine, [machine.bench, "alloc", "--kind", kind, "--step", str(step_bytes),
                                   "--hold", "0.4", "--json", *more], limit)
    report = figures["program"]
    expect(report["refused_with"] == OUT_OF_MEMORY, f"refused with {report['refused_with']}", figures)
    expect(report["mismatches"] == 0, f"{report['mismatches']} words of memory changed", figures)
    check_cap(figures, granule)
    return figures


@step("a.linear", "memory", sim=True)
def linear(machine):
    return bench_fill(machine, "linear", 2 * MIB, 2 * MIB)


@step("a.linear_small", "memory", sim=True)
def linear_small(machine):
    return bench_fill(machine, "linear", 2 * MIB, 200000, limit=2 * GIB)


@step("a.async", "memory", sim=True)
def stream_ordered(machine):
    return bench_fill(machine, "async", 32 * MIB, 2 * MIB)


@step("a.vmm", "memory", sim=True)
def virtual_memory(machine):
    return bench_fill(machine, "vmm", 2 * MIB, 2 * MIB)


@step("a.pitch", "memory", sim=True)
def pitched(machine):
    return bench_fill(machine, "pitch", 4 * MIB, 2 * MIB)


@step("a.array", "memory", sim=True)
def arrays(machine):
    # 256 rows of 64 KiB: 16 MiB, with nothing lost to the driver's rounding of rows.
    return bench_fill(machine, "array", 16 * MIB, 16 * MIB)


@step("a.graph", "memory", sim=True)
def graph_memory(machine):
    return bench_fill(machine, "graph", 32 * MIB, 32 * MIB)


@step("a.managed", "memory", sim=True)
def managed(machine):
    """Managed memory is not in NVML's figure; what is checked is that it is refused at the limit."""
    figures = fill_slice(machine, [machine.bench, "alloc", "--kind", "managed", "--step", "64M",
                                   "--limit", "5G", "--hold", "0.4", "--json"], 4 * GIB)
    figures["note"] = "NVML's per-process figure leaves managed memory out; charged in full while it lives"
    report = figures["program"]
    expect(report["refused_with"] == OUT_OF_MEMORY, f"refused with {report['refused_with']}", figures)
    expect(report["granted_bytes"] <= 4 * GIB, "more granted than the slice has", figures)
    expect(figures["over_bytes"] <= 0, "physical use over the cap", figures)
    return figures


@step("a.two_processes", "memory", sim=True)
def two_processes(machine):
    """One takes 2 GiB and holds it, the other takes what is left of the same slice."""
    ready = os.path.join(machine.scratch, "first")
    script = (f"rm -f {ready}; {machine.bench} alloc --step 2M --limit 2G --hold 60 --json >{ready} & first=$!; "
              f"for i in $(seq 300); do grep -q granted {ready} && break; sleep 0.1; done; cat {ready}; "
              f"{machine.bench} alloc --step 2M --hold 0.4 --json; kill $first; wait $first")
    with Sampler(machine) as sampler:
        process = machine.start(machine.in_slice(["bash", "-c", script], memory=6 * GIB))
        sampler.group("slice", process.pid)
        ran = machine.finish(process, 60)
    figures = figures_of(sampler, "slice", 6 * GIB, None)
    figures["programs"] = [json.loads(line) for line in ran.out.splitlines() if line.startswith("{")]
    expect(len(figures["programs"]) == 2, f"one of two did not report: {ran.err[-400:]}", figures)
    first, second = figures["programs"]
    expect(first["granted_bytes"] == 2 * GIB, "the first did not get its 2 GiB", figures)
    expect(second["refused_with"] == OUT_OF_MEMORY, "the second was not refused", figures)
    expect(first["mismatches"] == second["mismatches"] == 0, "memory changed", figures)
    check_cap(figures, 4 * MIB)
    return figures


@step("a.two_slices", "memory", sim=True)
def two_slices(machine):
    limits = {"first": 3 * GIB, "second": 5 * GIB}
    command = [machine.bench, "alloc", "--step", "2M", "--hold", "2", "--json"]
    with Sampler(machine) as sampler:
        processes = {}
        for name, limit in limits.items():
            processes[name] = machine.start(machine.in_slice(command, memory=limit))
            sampler.group(name, processes[name].pid)
        reports = {name: machine.finish(process, 60).json() for name, process in processes.items()}
    figures = {name: figures_of(sampler, name, limits[name], {"program": reports[name]})
               for name in limits}
    for name in limits:
        expect(reports[name]["refused_with"] == OUT_OF_MEMORY, f"{name}: not refused", figures)
        check_cap(figures[name], 2 * MIB)
    return figures


@step("a.reject_time", "memory", sim=True)
def reject_time(machine):
    """How fast a refusal is, beside what the bare driver takes to refuse."""
    command = [machine.bench, "alloc", "--step", "2M", "--json"]
    times = [machine.run(machine.in_slice(command, memory=GIB), 30).json()["reject_us"]
             for _ in range(3)]
    return {"reject_us": median(times), "all": times}


TORCH_KINDS = {
    "default": {},
    "expandable": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
    "cudaMallocAsync": {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"},
}


# Kernels that load at their first launch: what the shim keeps back for them (docs/adr/0005).
KERNEL_HEADROOM = 128 * MIB


def torch_fill(machine, env, granule, mode="fill"):
    figures = fill_slice(machine, machine.python("torch_fill.py", mode), 6 * GIB, 90, env)
    report = figures["program"]
    expect(report["refused_with"] == "OutOfMemoryError", f"refused with {report['refused_with']}", figures)
    expect(report["wrong"] == 0, f"{report['wrong']} tensors changed", figures)
    check_cap(figures, granule)
    return figures


@step("a.torch_default", "memory", needs=("torch",))
def torch_default(machine):
    # The caching allocator asks for 20 MiB at a time for tensors of a few MiB.
    return torch_fill(machine, TORCH_KINDS["default"], 24 * MIB + KERNEL_HEADROOM)


@step("a.torch_expandable", "memory", needs=("torch",))
def torch_expandable(machine):
    return torch_fill(machine, TORCH_KINDS["expandable"], 24 * MIB + KERNEL_HEADROOM)


@step("a.torch_cudaMallocAsync", "memory", needs=("torch",))
def torch_malloc_async(machine):
    return torch_fill(machine, TORCH_KINDS["cudaMallocAsync"], 36 * MIB + KERNEL_HEADROOM)


@step("a.torch_graph", "memory", needs=("torch",))
def torch_graph(machine):
    return torch_fill(machine, {}, 300 * MIB + KERNEL_HEADROOM, "graph")


@step("a.torch_late_kernels", "memory", needs=("torch",))
def torch_late_kernels(machine):
    """Kernels used for the first time when the slice is full: their modules need memory too, which no
    allocation call shows."""
    figures = fill_slice(machine, machine.python("torch_fill.py", "late"), 6 * GIB, 90)
    expect(figures["program"]["refused_with"] == "OutOfMemoryError", "never refused", figures)
    check_cap(figures, None)
    return figures


@step("j.race", "memory", sim=True)
def race(machine):
    """Eight processes of one slice take what they can at the same time, over and over."""
    limit, block = 8 * GIB, 16 * MIB
    with Sampler(machine) as sampler:
        process = machine.start(machine.in_slice(
            machine.python("race.py", "8", "200", str(block)), memory=limit))
        sampler.group("slice", process.pid)
        ran = machine.finish(process, 110)
    figures = figures_of(sampler, "slice", limit, {"program": ran.json()})
    report = figures["program"]
    expect(report["rounds"] == 200, f"only {report['rounds']} rounds: {ran.err[-300:]}", figures)
    expect(report["max_granted_bytes"] <= limit, "more granted than the slice has", figures)
    expect(report["errors"] == [], f"other errors: {report['errors'][:3]}", figures)
    expect(report["max_left_bytes"] < block,
           f"{report['max_left_bytes']} bytes stayed free in a round, more than a block", figures)
    expect(figures["over_bytes"] <= 0, f"{figures['over_bytes']} bytes over the cap", figures)
    return figures


@step("k.killed", "memory", sim=True)
def killed(machine):
    """What a killed process held comes back to its slice and to the card."""
    alloc = f"{machine.bench} alloc --step 2M --json"
    limit = 3 * GIB
    process = machine.start(machine.in_slice(
        ["bash", "-c", f"{alloc} --hold 60; echo ended; {alloc}"], memory=limit))
    figures = {"limit_bytes": limit}
    try:
        line = wait_for_line(process, 30)
        expect(line is not None, "the first program did not report")
        first = json.loads(line)
        held = gpu_processes(machine).get(first["pid"], 0)
        os.kill(first["pid"], signal.SIGKILL)
        ran = machine.finish(process, 30)
        second = ran.json()
        figures.update(first=first, second=second, nvml_before_kill=held,
                       nvml_after=gpu_processes(machine).get(first["pid"], 0))
    finally:
        stop(process)
    expect(figures["nvml_after"] == 0, "NVML still shows the killed process", figures)
    expect(second["granted_bytes"] == first["granted_bytes"],
           f"granted {first['granted_bytes']} before and {second['granted_bytes']} after", figures)
    return figures


def gpu_processes(machine):
    """{pid: bytes} of NVML outside every slice."""
    report = machine.run(machine.python("nvml_view.py"), 20, bare=True).json()
    return {entry["pid"]: entry["bytes"] for entry in report["processes"]}
