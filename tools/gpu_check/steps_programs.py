"""Shares of programs as users run them: PyTorch, torch.compile, Hugging Face, JAX, numba, CuPy; alone, natively side by
side, and in slices, all in one call.

`./dev gpu-check time --only programs`. Every program starts at once and is idle until it is told to work. The figures keep
the last steps of each program one by one, and what `allot ps` said meanwhile.
"""
import collections
import contextlib
import json
import os
import subprocess
import threading
import time

from common import expect, median, step, stop, wait_for_line
from region import Region
from time_cases import Cases, at_least, shown

KINDS = ("train", "decode", "hf", "compiled", "jax", "numba", "cupy", "matmul")
PAIRS = (("decode", "train"), ("hf", "train"), ("compiled", "matmul"), ("jax", "hf"), ("numba", "train"),
         ("decode", "matmul"))
SHARES = ((50, 50), (30, 70), (70, 30))
FIVE = ((("hf", "decode", "jax", "numba", "train"), (20, 20, 20, 20, 20)),
        (("compiled", "cupy", "hf", "numba", "matmul"), (30, 10, 10, 20, 30)))
SECONDS, LEARNS, TIMES = 2, 1.5, 2
CEILED, CEILINGS = ("decode", "hf", "jax"), (50, 20)


class Agents:
    """What the agents of a region folder publish while they are looked at: how often each set of flags was seen, and
    the middle of the footprints and windows."""

    def __init__(self, folder):
        self.folder, self.end, self.looks = folder, threading.Event(), {}

    def __enter__(self):
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join(5)
        return False

    def watch(self):
        regions = {name[:-6]: Region(os.path.join(self.folder, name)) for name in os.listdir(self.folder)
                   if name.endswith(".slice")}
        while not self.end.wait(0.01):
            for name, region in regions.items():
                self.looks.setdefault(name, []).extend(client for client in region.published())
        for region in regions.values():
            region.close()

    def figures(self):
        out = {}
        for name, looks in self.looks.items():
            flags = collections.Counter(" ".join(look["flags"]) for look in looks)
            out[name] = {"flags": {text: round(count / len(looks), 3) for text, count in flags.most_common(5)}}
            for key in ("footprint", "window", "timeslice_us", "busy"):
                values = sorted(look[key] for look in looks)
                out[name][key] = [values[int(part * (len(values) - 1))] for part in (0, 0.25, 0.5, 0.75, 1)]
        return out


class Programs:
    """So many programs, each natively, or each in a slice of a region folder of their own: slices that worked lately
    keep a place in the period, so those of another measurement must not be seen."""

    def __init__(self, machine, kinds, folder=None):
        self.machine, self.kinds, self.folder = machine, kinds, folder
        self.env = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
        if folder:
            os.makedirs(folder, mode=0o700)
            self.env["ALLOT_DIR"] = folder
        self.processes = [self.start(kind) for kind in kinds]

    def start(self, kind):
        command = self.machine.python("program_time.py", kind)
        if self.folder:
            command = self.machine.in_slice(command, name=kind, options=["--gpu-share", "10"])
        return self.machine.start(command, bare=not self.folder, env=self.env, stdin=subprocess.PIPE)

    def ready(self, until):
        """What did not start."""
        lost = []
        for kind, process in zip(self.kinds, self.processes):
            if wait_for_line(process, max(1.0, until - time.monotonic())) is None:
                stop(process)
                lost.append(f"{kind}: {process.communicate()[1][-500:]}")
        return lost

    def runs(self, kinds):
        return all(self.processes[self.kinds.index(kind)].poll() is None for kind in kinds)

    def end(self):
        for process in self.processes:
            stop(process)
            process.communicate()

    def work(self, kinds, seconds):
        """All at once; their answers and what ps said meanwhile."""
        begin = time.monotonic() + 0.05
        chosen = [self.processes[self.kinds.index(kind)] for kind in kinds]
        for process in chosen:
            process.stdin.write(f"{begin} {seconds}\n")
            process.stdin.flush()
        with Agents(self.folder) if self.folder else contextlib.nullcontext() as agents:
            answers = [wait_for_line(process, seconds + 30) for process in chosen]
        expect(None not in answers, f"no answer of one of {kinds}")
        return [json.loads(answer) for answer in answers], agents and agents.figures()

    def set(self, kind, *flags):
        line = [self.machine.allot, "set", kind, *[str(flag) for flag in flags]]
        changed = self.machine.run(line, 10, env=self.env)
        expect(changed.status == 0, f"allot set: {changed.err[-300:]}")

    def grant(self, shares):
        for kind in self.kinds:
            self.set(kind, "--gpu-share", 1)
        for kind, share in zip(self.kinds, shares):
            self.set(kind, "--gpu-share", share)


def measure(cases, programs, shares, alone, natively):
    kinds = programs.kinds
    programs.grant(shares)
    programs.work(kinds, LEARNS)
    runs = [programs.work(kinds, SECONDS) for _ in range(TIMES)]
    got = [median([answers[i]["rate"] for answers, _ in runs]) / alone[kind] * 100 for i, kind in enumerate(kinds)]
    checks = [at_least(f"{kind} of alone %", value, share - 1) for kind, value, share in zip(kinds, got, shares)]
    checks += [shown(f"{kind} p99 ms", one["p99"]) for kind, one in zip(kinds, runs[-1][0])]
    checks += [shown(f"{kind} natively %", value) for kind, value in zip(kinds, natively)]
    name = " : ".join(kinds)
    cases.figures[f"{name} {shares}"] = {"runs": [answers for answers, _ in runs], "seen": [seen for _, seen in runs]}
    cases.add(name, ":".join(str(share) for share in shares), ":".join(f"{value:.1f}" for value in got), *checks)


def ceilings(cases, programs, kind, alone):
    programs.set(kind, "--gpu-share", "none")
    for ceiling in CEILINGS:
        programs.set(kind, "--gpu-max", ceiling)
        programs.work([kind], LEARNS + 1)
        answers, seen = programs.work([kind], SECONDS)
        cases.add(f"max {kind}", ceiling, f"{answers[0]['rate'] / alone[kind] * 100:.1f}",
                  shown("p50 ms", answers[0]["p50"]), shown("p99 ms", answers[0]["p99"]))
        cases.figures[f"max {kind} {ceiling}"] = {"answer": answers[0], "seen": seen}


@step("t.programs", "time_programs", needs=("torch", "jax", "numba", "cupy"), cost=300, extra=True)
def programs(machine):
    cases = Cases()
    bare = Programs(machine, KINDS)
    groups = [Programs(machine, kinds, os.path.join(machine.scratch, f"programs{i}"))
              for i, kinds in enumerate([*PAIRS, *[kinds for kinds, _ in FIVE]])]
    single = Programs(machine, CEILED, os.path.join(machine.scratch, "programs-single"))
    try:
        until = time.monotonic() + 150
        lost = [text for each in (bare, *groups, single) for text in each.ready(until)]
        cases.figures["lost"] = lost
        if lost:
            print("did not start: " + "; ".join(lost), flush=True)
        alone = {}
        for kind in KINDS:
            if not bare.runs([kind]):
                continue
            answer = bare.work([kind], SECONDS)[0][0]
            alone[kind] = answer["rate"]
            cases.add(f"alone {kind}", None, f"{answer['rate']:.1f}", shown("p50 ms", answer["p50"]))
            cases.figures[f"alone {kind}"] = answer
        for kind in [kind for kind in CEILED if kind in alone]:
            answers, seen = single.work([kind], SECONDS)
            cases.add(f"in a slice {kind}", None, f"{answers[0]['rate'] / alone[kind] * 100:.1f}")
            cases.figures[f"in a slice {kind}"] = {"answer": answers[0], "seen": seen}
        for group, kinds in zip(groups, PAIRS):
            if not (bare.runs(kinds) and group.runs(kinds)):
                continue
            for kind in kinds:  # now: how fast a virtual machine's CPUs are wanders within minutes
                alone[kind] = bare.work([kind], SECONDS)[0][0]["rate"]
            bare.work(kinds, 0.7)
            natively = [one["rate"] / alone[kind] * 100 for kind, one in zip(kinds, bare.work(kinds, SECONDS)[0])]
            for shares in SHARES:
                measure(cases, group, shares, alone, natively)
        for group, (kinds, shares) in zip(groups[len(PAIRS):], FIVE):
            if not (bare.runs(kinds) and group.runs(kinds)):
                continue
            natively = [one["rate"] / alone[kind] * 100 for kind, one in zip(kinds, bare.work(kinds, SECONDS)[0])]
            measure(cases, group, shares, alone, natively)
        for kind in CEILED:
            ceilings(cases, single, kind, alone)
    finally:
        for each in (bare, *groups, single):
            each.end()
    expect(not lost, "programs did not start: " + "; ".join(lost), cases.figures)
    return cases.done()
