"""GPU time as it is today: loads alone and side by side, and the latency of a small request.

No limit on time is enforced yet; these figures are what it will be judged against.
"""
from common import expect, step

LOADS = {"1ms": ["--kernel-us", "1000"], "50ms": ["--kernel-us", "50000", "--inflight", "2"],
         "graph": ["--graph", "--kernel-us", "200", "--inflight", "4"]}


def bench(machine, *arguments):
    return [machine.bench, *arguments, "--json"]


def fixed(report):
    return ["--iters", str(report["iters"]), "--solo-us", str(report["solo_us"])]


def alone(machine, name, seconds="3"):
    return machine.run(bench(machine, "load", "--seconds", seconds, *LOADS[name]), 60, bare=True).json()


def pair(machine, name):
    solo = alone(machine, name)
    command = machine.in_slice(bench(machine, "load", "--seconds", "8", *LOADS[name], *fixed(solo)),
                               memory="8G")
    processes = [machine.start(command), machine.start(command)]
    both = [machine.finish(process, 60).json() for process in processes]
    figures = {"alone": solo, "both": both, "sum": sum(report["achieved"] for report in both)}
    expect(solo["achieved"] > 0.5, "a load alone did not fill the GPU", figures)
    return figures


@step("t.pair_1ms", "time", sim=True)
def pair_of_kernels(machine):
    return pair(machine, "1ms")


@step("t.pair_50ms", "time", sim=True)
def pair_of_long_kernels(machine):
    return pair(machine, "50ms")


@step("t.pair_graph", "time", sim=True)
def pair_of_graphs(machine):
    return pair(machine, "graph")


@step("t.latency", "time", sim=True)
def latency_beside_load(machine):
    quiet = machine.run(bench(machine, "latency", "--seconds", "5"), 60, bare=True).json()
    load = machine.start(machine.in_slice(bench(machine, "load", "--seconds", "12"), memory="8G"))
    beside = machine.run(machine.in_slice(
        bench(machine, "latency", "--seconds", "5", "--iters", str(quiet["iters"])), memory="8G"), 60)
    machine.finish(load, 60)
    figures = {"alone": quiet, "beside": beside.json()}
    expect(figures["alone"]["requests"] > 100, "too few requests", figures)
    return figures
