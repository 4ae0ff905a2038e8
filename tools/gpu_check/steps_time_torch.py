"""GPU time with PyTorch: ceilings on matmul and training, two launch-bound trainings, speed without a limit.

Figures that stand side by side: device time of the work, throughput against the same process without a limit, the
SM clock of both, and the GPU time that allot measured (`allot ps --json`). Judged is device time of the matmuls
against the same alone, by events around each kernel: a program's own gaps may fall into the time in which it may not run anyway, so its
throughput can come out above its ceiling, and the bf16 matmul runs into the power limit alone and clocks up at a
lower duty. Of a training, in which kernels follow each other too closely for that, throughput is judged.
"""
import json
import os
import subprocess
import threading
import time

from common import expect, mean, median, step, stop, wait_for_line
from nvml import Nvml, NvmlError
from steps_frameworks import train_pair
from steps_time import POINTS, window
from time_cases import Cases, at_least, at_most, shown

ALLOWED_SLOWER = 0.003


class Clocks:
    """Mean SM clock and power while it is entered."""

    def __init__(self, index=None):
        self.index = index or 0

    def __enter__(self):
        self.mhz, self.watts, self.end = [], [], threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self):
        try:
            gpu = Nvml(self.index)
            while not self.end.wait(0.2):
                self.mhz.append(gpu.sm_clock())
                self.watts.append(gpu.power_watts())
        except (OSError, NvmlError, AttributeError):
            return

    def __exit__(self, *_):
        self.end.set()
        self.thread.join(5)
        return False

    def figures(self):
        if not self.mhz:
            return None
        return {"sm_mhz": sum(self.mhz) / len(self.mhz), "watts": sum(self.watts) / max(1, len(self.watts))}


def start(machine, count_in_slices, bare=0, flags=(), cpus=None):
    """Started all at once: importing takes seconds and CPUs are many. cpus: of the n-th in a slice and of the n-th
    without one."""
    command = machine.python("torch_time.py")
    processes = []

    def pinned(i):
        return {} if cpus is None else {"preexec_fn": lambda: os.sched_setaffinity(0, cpus[i])}

    for i in range(count_in_slices):
        options = list(flags)
        if machine.level:
            options += ["--level", machine.level]
        processes.append(machine.start(machine.in_slice(command, name=f"gpu-check-torch-{i}", options=options),
                                       stdin=subprocess.PIPE, **pinned(i)))
    processes += [machine.start(command, bare=True, stdin=subprocess.PIPE, **pinned(i)) for i in range(bare)]
    return processes


def end(processes):
    for process in processes:
        stop(process)
        process.communicate()


def ready(processes):
    for process in processes:
        if wait_for_line(process, 90) is None:
            end([process])
            expect(False, f"torch_time.py did not start (exit {process.returncode})")


def tell(process, kind, begin, seconds):
    process.stdin.write(f"{kind} {begin} {seconds}\n")
    process.stdin.flush()


def work(processes, kind, seconds):
    """All of them at once for so long; their answers."""
    begin = time.monotonic() + 0.05
    for process in processes:
        tell(process, kind, begin, seconds)
    return answers_of(processes, seconds, kind)


def answers_of(processes, seconds, kind):
    answers = [wait_for_line(process, seconds + 30) for process in processes]
    expect(None not in answers, f"a process did not answer {kind}")
    return [json.loads(answer) for answer in answers]


def used_ns(machine, name):
    """GPU time of a slice as allot measured it, with the moment; None where it says nothing."""
    began = time.monotonic()
    ran = machine.run([machine.allot, "ps", "--json"], 10)
    at = (began + time.monotonic()) / 2
    if ran.status != 0:
        return None
    for slice in ran.document().get("slices", []):
        if slice["name"] == name and slice["gpus"] and "time_used_ns" in slice["gpus"][0]:
            return at, slice["gpus"][0]["time_used_ns"]
    return None


def measured(machine, process, kind, seconds, name):
    """Over whole seconds, which are whole cycles of windows: from the first look to the last wait would be so
    many cycles and a part of one, and the last wait always ends inside a window."""
    begin = time.monotonic() + 0.05
    with Clocks(machine.gpu) as clocks:
        tell(process, kind, begin, seconds + 0.4)
        looks = []
        for at in (begin + 0.2, begin + 0.2 + seconds):
            time.sleep(max(0.0, at - time.monotonic()))
            looks.append(used_ns(machine, name))
        line = wait_for_line(process, seconds + 30)
    expect(line is not None, f"the process did not answer {kind}")
    answer = json.loads(line)
    answer["clocks"] = clocks.figures()
    answer["rate"] = mean(answer["per_second"])
    if None not in looks:
        answer["time_by_allot"] = (looks[1][1] - looks[0][1]) / 1e9 / (looks[1][0] - looks[0][0])
    return answer


@step("t.torch_max", "time_torch", needs=("torch",), cost=58)
def torch_ceilings(machine):
    name = "gpu-check-torch-0"
    maxima = (25, 75) if machine.quick else (10, 25, 50, 75)
    kinds = ("matmul", "matmul32", "train")
    seconds = {"matmul": 2, "matmul32": 2, "train": 3}
    processes = start(machine, 1, flags=("--gpu-max", "100"))
    cases = Cases()
    try:
        ready(processes)
        alone = {}
        for kind in kinds:
            work(processes, kind, 1.0)
            alone[kind] = measured(machine, processes[0], kind, seconds[kind], name)
        cases.figures["alone"] = alone
        for maximum in maxima:
            changed = machine.run([machine.allot, "set", name, "--gpu-max", maximum], 20)
            expect(changed.status == 0, f"allot set: {changed.err[-300:]}", cases.figures)
            time.sleep(0.3)
            for kind in kinds:
                got = measured(machine, processes[0], kind, seconds[kind], name)
                cases.figures[f"{kind}_{maximum}"] = got
                judge_ceiling(cases, kind, maximum, got, alone[kind])
    finally:
        end(processes)
    return cases.done()


def judge_ceiling(cases, kind, maximum, got, alone):
    of_alone = got["rate"] / alone["rate"] * 100
    by_allot = got["time_by_allot"] * 100 if "time_by_allot" in got else None
    clock = None
    if got["clocks"] and alone["clocks"]:
        clock = got["clocks"]["sm_mhz"] / alone["clocks"]["sm_mhz"]
    shown_too = [shown("of alone", of_alone), shown("clock x", clock), shown("by allot", by_allot)]
    if "busy_per_second" in got:
        # The gaps that it has alone are no fault of the ceiling.
        whole = mean(alone["busy_per_second"])
        per_second = [100 * busy / whole for busy in got["busy_per_second"]]
    else:
        per_second = [rate / alone["rate"] * 100 for rate in got["per_second"]]
    achieved = mean(per_second)
    checks = [at_most("error", achieved - maximum, POINTS),
              at_most("second", max(abs(each - maximum) for each in per_second), 2.0)]
    cases.add(f"max {maximum} {kind}", maximum, achieved, *checks, *shown_too)


def cpus_of_pair():
    """Four each, the same for both ways; None where there are not so many."""
    allowed = sorted(os.sched_getaffinity(0))
    return (set(allowed[:4]), set(allowed[4:8])) if len(allowed) >= 12 else None


@step("t.torch_pair", "time_torch", needs=("torch",), cost=36)
def launch_bound_trainings(machine):
    """Two small trainings in slices of half the GPU against two under the driver's own slicing, in turns."""
    processes = start(machine, 2, bare=2, flags=("--gpu-share", "50"), cpus=cpus_of_pair())
    cases = Cases()
    rates = {"slice": [], "native": [], "alone": []}
    try:
        ready(processes)
        pairs = {"slice": processes[:2], "native": processes[2:], "alone": processes[2:3]}
        for which in ("slice", "native"):
            work(pairs[which], "launch", 1.0)
        # Its speed depends on the CPUs and wanders by a fifth within seconds: many short turns on the same CPUs.
        for which in ("alone",) * 2 + ("native", "slice", "slice", "native") * (4 if machine.quick else 6):
            answers = work(pairs[which], "launch", 0.5)
            rates[which].append(sum(answer["rate"] for answer in answers))
            cases.figures.setdefault(which, []).append(answers)
    finally:
        end(processes)
    ours, native = median(rates["slice"]), median(rates["native"])
    # Neighbouring turns saw the same machine: native, slice, slice, native.
    fours = range(0, len(rates["slice"]), 2)
    ratios = [sum(rates["slice"][i:i + 2]) / sum(rates["native"][i:i + 2]) for i in fours]
    cases.figures.update({"rates": rates, "ratios": ratios})
    cases.add("pair torch training", "50:50", ours / median(rates["alone"]) * 100,
              at_least("against native", median(ratios), 1.0), shown("lowest", min(ratios)),
              shown("highest", max(ratios)), shown("it/s", ours), shown("native", native),
              shown("alone", median(rates["alone"])))
    return cases.done()


@step("t.torch_unlimited", "time_torch", needs=("torch",), cost=22)
def unlimited_training(machine):
    """A slice that limits no time must cost a training nothing."""
    seconds, losses = train_pair(machine, "transformer")
    slower = min(seconds["slice"]) / min(seconds["plain"]) - 1
    cases = Cases()
    cases.figures.update({"seconds": seconds, "losses_equal": losses["plain"] == losses["slice"]})
    cases.add("unlimited training", None, 100 / (1 + slower),
              at_most("slower %", max(0.0, slower) * 100, ALLOWED_SLOWER * 100),
              shown("median %", (median(seconds["slice"]) / median(seconds["plain"]) - 1) * 100))
    expect(losses["plain"] == losses["slice"], "the losses differ", cases.figures)
    return cases.done()
