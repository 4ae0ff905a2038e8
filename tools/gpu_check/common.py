"""What the steps share: the machine, running programs with a limit on time, and recording results.

A step is a function registered with @step. It gets the Machine and returns the figures it measured
as a dictionary; it calls `expect` for what must hold and raises Skip for what cannot be asked on this
machine. Nothing here imports a GPU framework: those run in processes of their own, so that a hung or
crashed one costs its step and no more.
"""
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
GIB = 1 << 30
PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")


class Skip(Exception):
    """The step cannot be asked here; the text says why."""


class StepFailed(Exception):
    """What had to hold did not; `figures` keeps what was measured."""

    def __init__(self, why, figures=None):
        super().__init__(why)
        self.figures = figures or {}


def expect(condition, why, figures=None):
    if not condition:
        raise StepFailed(why, figures)


@dataclasses.dataclass
class Ran:
    status: int
    out: str
    err: str
    seconds: float
    timed_out: bool

    def json(self):
        """The last line of stdout that is a JSON object."""
        for line in reversed(self.out.splitlines()):
            if line.startswith("{"):
                return json.loads(line)
        raise StepFailed(f"no result printed (exit {self.status}{', timed out' if self.timed_out else ''}): "
                         f"{(self.err or self.out).strip()[-600:]}")


    def document(self):
        """All of stdout as one JSON value."""
        try:
            return json.loads(self.out)
        except ValueError:
            raise StepFailed(f"no JSON printed (exit {self.status}): {(self.err or self.out).strip()[-600:]}")


@dataclasses.dataclass
class Step:
    name: str
    group: str
    function: object
    needs: tuple
    sim: bool
    cost: float = 5.0
    quick: bool = False
    extra: bool = False


STEPS = []


def step(name, group, needs=(), sim=False, cost=5.0, quick=False, extra=False):
    """Registers a step. needs: what Machine.missing may lack; sim: also runs on the software GPU; cost: seconds
    it takes, about; quick: part of the quick variant; extra: runs only when --only names it."""

    def register(function):
        STEPS.append(Step(name, group, function, tuple(needs), sim, cost, quick, extra))
        return function

    return register


class Machine:
    """Paths, environments and what this machine has."""

    def __init__(self, root, build, sim, deadline, quick=False, level=None, gpu=None):
        self.root = root
        self.gpu = gpu
        self.sim = sim
        self.quick = quick
        self.level = level
        self.deadline = deadline
        self.bin = os.path.join(build, "bin")
        self.lib = os.path.join(build, "lib")
        self.allot = os.path.join(self.bin, "allot")
        self.bench = os.path.join(self.bin, "allot-bench")
        self.uuid = None
        self.scratch = tempfile.mkdtemp(prefix="allot-gpu-check-")
        self.plain_env = {k: v for k, v in os.environ.items()
                          if not k.startswith("ALLOT_") and k != "LD_PRELOAD"}
        if sim:
            self.plain_env["ALLOT_SIM_GPUS"] = os.environ.get("ALLOT_SIM_GPUS", "1x80G")
            self.plain_env["ALLOT_SIM_DIR"] = os.path.join(self.scratch, "sim")
            os.makedirs(self.plain_env["ALLOT_SIM_DIR"], exist_ok=True)
        self.bare_env = dict(self.plain_env)
        if sim:
            self.bare_env["LD_LIBRARY_PATH"] = os.path.join(self.lib, "allot-sim")
        if gpu is not None:
            self._choose(gpu)
        self.missing = self._missing()

    def _choose(self, index):
        """Everything on one GPU of several, and slices that do not see those of a run on another one."""
        self.plain_env["ALLOT_DIR"] = os.path.join(self.scratch, "region")
        os.makedirs(self.plain_env["ALLOT_DIR"], mode=0o700)
        gpus = self.gpus()
        found = [gpu["uuid"] for gpu in gpus if gpu["index"] == index]
        if not found:
            sys.exit(f"gpu_check: no GPU {index}; there are {len(gpus)}")
        self.uuid = found[0]
        self.plain_env["CUDA_VISIBLE_DEVICES"] = self.uuid
        self.bare_env.update({name: self.plain_env[name] for name in ("CUDA_VISIBLE_DEVICES", "ALLOT_DIR")})

    def sim_words(self):
        return ["--sim=" + self.plain_env["ALLOT_SIM_GPUS"]] if self.sim else []

    def gpus(self):
        """What `allot gpus` says."""
        return self.run([self.allot, "gpus", "--json", *self.sim_words()], 60).document()["gpus"]

    def gpu_row(self):
        """Its row of the GPU that is used."""
        rows = self.gpus()
        return rows[0] if self.gpu is None else next(row for row in rows if row["uuid"] == self.uuid)

    def _missing(self):
        """Need -> why it is not there."""
        missing = {}
        for module in ("torch", "jax", "cupy", "numba", "numpy"):
            if self.sim and module != "numpy":
                missing[module] = "needs a card"
                continue
            found = subprocess.run(
                [sys.executable, "-c",
                 f"import importlib.util,sys; sys.exit(importlib.util.find_spec('{module}') is None)"])
            if found.returncode != 0:
                missing[module] = f"no Python package {module}"
        for program in ("nvidia-smi", "nvcc"):
            if self.sim:
                missing[program] = "needs a card"
            elif shutil.which(program) is None:
                missing[program] = f"no {program} in PATH"
        return missing

    def left(self):
        return self.deadline - time.monotonic()

    def in_slice(self, command, memory=None, name=None, options=()):
        """The command line that runs `command` in a slice."""
        line = [self.allot, "run", *self.sim_words()]
        if self.gpu is not None:
            line += ["--gpu", self.uuid]
        if memory is not None:
            line += ["--gpu-mem", str(memory)]
        if name is not None:
            line += ["--name", name]
        return line + list(options) + ["--"] + [str(part) for part in command]

    def start(self, command, bare=False, env=None, **more):
        environment = dict(self.bare_env if bare else self.plain_env)
        environment.update(env or {})
        return subprocess.Popen([str(part) for part in command], env=environment, text=True,
                                stdin=more.pop("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, start_new_session=True, **more)

    def finish(self, process, timeout, begin=None):
        begin = begin or time.monotonic()
        limit = max(1.0, min(timeout, self.left()))
        timed_out = False
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            timed_out = True
            stop(process)
            out, err = process.communicate()
        return Ran(process.returncode, out, err, time.monotonic() - begin, timed_out)

    def run(self, command, timeout=60, bare=False, env=None):
        begin = time.monotonic()
        return self.finish(self.start(command, bare=bare, env=env), timeout, begin)

    def python(self, program, *arguments):
        return [sys.executable, os.path.join(PROGRAMS, program), *arguments]

    def close(self):
        shutil.rmtree(self.scratch, ignore_errors=True)


def stop(process):
    """Ends a process started by Machine.start with everything it started in its session."""
    for sign, wait in ((signal.SIGTERM, 2), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, sign)
            process.wait(wait)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def wait_for_line(process, timeout, starts="{"):
    """The first line of a process's stdout that starts so; None when it ends or time is over."""
    import select
    until = time.monotonic() + timeout
    buffer = ""
    descriptor = process.stdout.fileno()
    while time.monotonic() < until:
        ready, _, _ = select.select([descriptor], [], [], 0.2)
        if not ready:
            continue
        piece = os.read(descriptor, 65536).decode(errors="replace")
        if not piece:
            return None
        buffer += piece
        for line in buffer.splitlines(keepends=True):
            if line.startswith(starts) and line.endswith("\n"):
                return line.strip()
    return None


def mean(values):
    return sum(values) / len(values)


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return 0.0
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
