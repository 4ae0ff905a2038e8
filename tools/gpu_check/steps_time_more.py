"""GPU time where it is held otherwise: in green contexts, under MPS, on several GPUs at once.

None of it is in the list that fits six minutes; `--only green,mps,two_gpus` runs it.
"""
import os
import subprocess
import time

from common import Skip, expect, mean, median, step
from steps_life import Program, programs, slice_of
from steps_time import LOADS, limits, share
from steps_time_torch import end, ready, work
from time_cases import Cases, at_least, at_most, shown


@step("t.green", "time_more", cost=15, extra=True)
def green_contexts(machine):
    """Half of the multiprocessors as a green context: a ceiling and freeze hold for what it submits."""
    name, cases = "gpu-check-green", Cases()
    kernels = os.path.join(machine.root, "src/bench/kernels.cc")
    with programs(Program(machine, name, options=("--gpu-max", "100"),
                          command=machine.python("life.py", kernels, "green"))) as (program,):
        cases.figures["load"] = program.ask("load 1ms", 60)
        time.sleep(1.5)
        now = time.monotonic()
        alone = program.rate(now - 1.0, now)
        rates = {}
        for maximum in (30, 60):
            changed = machine.run([machine.allot, "set", name, "--gpu-max", maximum], 20)
            expect(changed.status == 0, f"allot set: {changed.err[-300:]}", cases.figures)
            time.sleep(3.5)
            now = time.monotonic()
            rates[maximum] = program.rate(now - 3.0, now)
        cases.figures["slice"] = slice_of(machine, name)
    cases.figures.update({"alone": alone, "rates": rates})
    process = cases.figures["slice"]["processes"][0]
    points, _ = limits(machine)
    for maximum, rate in rates.items():
        achieved = rate / alone * 100 if alone else 0
        cases.add(f"max {maximum} green", maximum, achieved, at_most("error", achieved - maximum, points))
    expect(process["level"] == "channel", f"held by {process['level']} ({process['reason']})", cases.figures)
    return cases.done()


class Mps:
    """A control daemon of its own while it is entered; the environment of its clients."""

    def __init__(self, machine):
        folder = os.path.join(machine.scratch, "mps")
        os.makedirs(folder, exist_ok=True)
        self.env = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        self.all = dict(machine.bare_env, **self.env)

    def control(self, *words, line=None):
        try:
            return subprocess.run(["nvidia-cuda-mps-control", *words], env=self.all, input=line, text=True,
                                  capture_output=True, timeout=20)
        except FileNotFoundError:
            raise Skip("no nvidia-cuda-mps-control in PATH")

    def __enter__(self):
        started = self.control("-d")
        expect(started.returncode == 0, f"nvidia-cuda-mps-control: {started.stderr[-300:]}")
        return self

    def __exit__(self, *_):
        self.control(line="quit\n")
        return False


def levels(result):
    """(level, reason) of every process that `allot ps` named in the first phase."""
    return sorted({(process["level"], process.get("reason", "")) for slice in result["phases"][0]["slices"]
                   for process in slice.get("ps") or []})


@step("t.mps", "time_more", cost=40, extra=True)
def clients_of_mps(machine):
    """An MPS client's channels are the server's: it is held at the gate, and says so."""
    cases = Cases()
    with Mps(machine) as mps:
        cases.figures["doctor"] = machine.run([machine.allot, "doctor"], 60, env=mps.env).out
        ceiling = share(machine, ["max=30," + LOADS["1ms"]], 4, ["max=60"], env=mps.env)
        pair = share(machine, ["share=30," + LOADS["1ms"], "share=70," + LOADS["1ms"]], 4, env=mps.env)
    cases.figures.update({"ceiling": ceiling, "pair": pair, "levels": levels(ceiling) + levels(pair)})
    for maximum, phase in zip((30, 60), ceiling["phases"]):
        slice = phase["slices"][0]
        cases.add(f"max {maximum} MPS", maximum, slice["judged"] * 100, at_most("error", slice["max_error_points"], 2),
                  shown("second", slice["max_worst_second_points"]))
    phase = pair["phases"][0]
    cases.add("1ms 30:70 MPS", "30:70", ":".join(f"{t['share_of_total'] * 100:.1f}" for t in phase["slices"]),
              at_most("mean error", phase.get("share_error_mean_points"), 3), shown("total", phase["total_achieved"]))
    held = {level for level, _ in cases.figures["levels"]}
    expect(held == {"launch"}, f"MPS clients are held by {cases.figures['levels']}", cases.figures)
    return cases.done()


def torch_program(machine, name=None, options=()):
    command = machine.python("torch_time.py")
    line = command if name is None else machine.in_slice(command, name=name, options=options)
    return machine.start(line, bare=name is None, stdin=subprocess.PIPE)


def steps_a_second(processes, seconds):
    """Of each, over whole seconds: whole cycles of windows."""
    return [mean(answer["per_second"]) for answer in work(processes, "reduce", seconds)]


@step("t.two_gpus", "time_more", needs=("torch",), cost=60, extra=True)
def slices_of_two_gpus(machine):
    """Two programs, each with kernels on two GPUs that wait for each other: an all-reduce progresses only while
    both of its GPUs are in its windows."""
    if machine.gpu is not None or len(machine.gpus()) < 2:
        raise Skip("needs two GPUs")
    cases, seconds = Cases(), 5
    names = ("gpu-check-two-0", "gpu-check-two-1")
    processes = [torch_program(machine, name, ("--gpu", "0,1", "--gpu-share", part))
                 for name, part in zip(names, (30, 70))]
    bare = [torch_program(machine) for _ in names]
    try:
        ready(processes + bare)
        for process in processes + bare:
            work([process], "reduce", 0.5)
        alone = [steps_a_second([process], 2)[0] for process in processes]
        native = steps_a_second(bare, 3)
        end(bare)
        cases.figures.update({"alone": alone, "native": native})
        for granted in ((30, 70), (50, 50)):
            for name, part in sorted(zip(names, granted), key=lambda pair: pair[1]):
                machine.run([machine.allot, "set", name, "--gpu-share", part, "--overcommit"], 20)
            work(processes, "reduce", 1.0)
            rates = steps_a_second(processes, seconds)
            cases.figures[f"{granted[0]}:{granted[1]}"] = rates
            parts = [rate / each for rate, each in zip(rates, alone)]
            got = parts[0] / sum(parts) * 100
            cases.add(f"reduce {granted[0]}:{granted[1]}", f"{granted[0]}:{granted[1]}", f"{got:.1f}:{100 - got:.1f}",
                      at_most("error", got - granted[0], 3), at_least("total", sum(parts), 0.9),
                      shown("native total", sum(native) / median(alone)))
        cases.figures["slices"] = [slice_of(machine, name) for name in names]
    finally:
        end(processes + bare)
    judge_ceiling_of_two(machine, cases, median(alone))
    return cases.done()


def judge_ceiling_of_two(machine, cases, alone):
    name = "gpu-check-two-2"
    process = torch_program(machine, name, ("--gpu", "0,1", "--gpu-max", "50"))
    try:
        ready([process])
        work([process], "reduce", 1.0)
        got = steps_a_second([process], 4)[0]
    finally:
        end([process])
    cases.figures["max 50"] = got
    achieved = got / alone * 100
    cases.add("max 50 reduce", 50, achieved, at_most("error", achieved - 50, 3))
