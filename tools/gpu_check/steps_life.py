"""Life cycle: freeze and thaw, evict and restore, a fault in one slice. Programs are programs/life.py.

Freeze and thaw are timed from the order in the slice's file to the agents' answer, which they give after the
driver has stopped the channels; that the load then really stands still is seen in its own progress. Contents
are checked on the device, each 16 MiB with a value of its own.
"""
import json
import os
import select
import subprocess
import time

from common import GIB, MIB, StepFailed, expect, step, stop
from nvml import Nvml, NvmlError
from region import Region
from time_cases import Cases, Judge, at_least, at_most, shown

FREEZE_MS = 5.0
RESIDUE = 64 * MIB
NEIGHBOUR = 0.99


class Program:
    """programs/life.py in a slice of its own, or without one."""

    def __init__(self, machine, name, bare=False, options=(), command=None):
        self.machine, self.name = machine, name
        command = command or machine.python("life.py", os.path.join(machine.root, "src/bench/kernels.cc"))
        line = command if bare else machine.in_slice(command, name=name, options=options)
        self.process = machine.start(line, bare=bare, stdin=subprocess.PIPE)
        self.buffer = ""
        self.pid = self.read(90).get("pid")

    def read(self, seconds):
        until = time.monotonic() + seconds
        descriptor = self.process.stdout.fileno()
        while "\n" not in self.buffer:
            left = until - time.monotonic()
            ready = left > 0 and select.select([descriptor], [], [], left)[0]
            piece = os.read(descriptor, 65536).decode() if ready else ""
            if not piece:
                stop(self.process)
                said = self.process.stderr.read()[-600:] if self.process.stderr else ""
                raise StepFailed(f"{self.name}: no answer in {seconds} s (exit {self.process.returncode}): {said}")
            self.buffer += piece
        line, self.buffer = self.buffer.split("\n", 1)
        return json.loads(line)

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line, seconds=60):
        self.tell(line)
        return self.read(seconds)

    def rate(self, begin, end):
        return self.ask(f"rate {begin} {end}", 60)["rate"]

    def end(self):
        stop(self.process)
        self.process.communicate()


def programs(*made):
    """For `with`: ends them all."""

    class All:
        def __enter__(self):
            return made

        def __exit__(self, *_):
            for program in made:
                program.end()
            return False

    return All()


def allot(machine, *words, seconds=200):
    ran = machine.run([machine.allot, *words], seconds)
    expect(ran.status == 0, f"allot {' '.join(str(w) for w in words)}: {(ran.err or ran.out).strip()[-500:]}")
    return ran


def slice_of(machine, name):
    ran = machine.run([machine.allot, "ps", "--json"], 20)
    found = [t for t in ran.document()["slices"] if t["name"] == name]
    return found[0] if found else None


def percentile(values, permille):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * permille // 1000)] if ordered else None


def card_used(machine, pid):
    """(bytes of the process as NVML lists it, bytes used on the card); None where NVML does not say."""
    try:
        gpu = Nvml(machine.gpu or 0)
        listed = dict(gpu.processes())
        return listed.get(pid, 0), gpu.memory()["used"]
    except (OSError, NvmlError, AttributeError):
        return None, None


def freeze(machine, kind):
    name = "gpu-check-life"
    rounds = 40 if machine.sim else 200
    cases = Cases()
    with programs(Program(machine, name)) as (program,):
        cases.figures["load"] = program.ask(f"load {kind}", 60)
        time.sleep(1.0)
        region = Region(slice_of(machine, name)["path"])
        freezes, thaws = [], []
        for i in range(rounds):
            freezes.append(region.freeze())
            time.sleep(0.002 + 0.0005 * (i % 9))
            thaws.append(region.thaw())
            time.sleep(0.008 + 0.001 * (i % 7))
            expect(freezes[-1] is not None and thaws[-1] is not None, f"round {i}: no answer", cases.figures)
        began = time.monotonic()
        region.freeze()
        time.sleep(1.0)
        ended = time.monotonic()
        region.thaw()
        region.close()
        time.sleep(0.5)
        inside = program.ask(f"rate {began + 0.15} {ended}")
        after = program.ask(f"rate {ended} {ended + 0.5}")
    cases.figures.update({"freeze_ms": [1e3 * f for f in freezes], "thaw_ms": [1e3 * t for t in thaws]})
    judge = Judge(machine)
    for what, values in (("freeze", freezes), ("thaw", thaws)):
        ms = [1e3 * value for value in values]
        cases.add(f"{what} {kind}", None, percentile(ms, 990), judge.at_most("p99 ms", percentile(ms, 990), FREEZE_MS),
                  shown("p50", percentile(ms, 500)), shown("max", max(ms)))
    cases.add(f"stands still {kind}", None, inside["ended"], at_most("batches frozen", inside["ended"], 0),
              at_least("batches after", after["ended"], 1))
    return cases.done()


for load in ("graph", "50ms"):
    step(f"l.freeze_{load}", "life", sim=True, cost=10)(lambda machine, load=load: freeze(machine, load))


def move_checks(machine, size, out, back, wrong, residue, before):
    moved = out["bytes"]
    seconds_out = sum(p["move_seconds"] for p in out["processes"])
    seconds_back = sum(p["move_seconds"] for p in back["processes"])
    return [at_most("mismatches", wrong, 0), at_most("residue MiB", residue / MIB if residue is not None else 0,
                                                     RESIDUE / MIB),
            shown("out s", out["seconds"]), shown("out GB/s", moved / 1e9 / seconds_out if seconds_out else None),
            shown("back s", back["seconds"]), shown("back GB/s", moved / 1e9 / seconds_back if seconds_back else None),
            shown("on card before MiB", before / MIB if before is not None else None)]


def evict_and_restore(machine, program, name, cases, size):
    held = program.ask(f"hold {size}", 120)
    pid = held["pid"]
    before, used_before = card_used(machine, pid)
    begin = time.monotonic()
    out = allot(machine, "evict", name, "--json").document()
    middle = time.monotonic()
    residue, used_between = card_used(machine, pid)
    listed = slice_of(machine, name)
    time.sleep(0.5)
    again = time.monotonic()
    back = allot(machine, "restore", name, "--json").document()
    end = time.monotonic()
    checked = program.ask("check", 120)
    cases.figures[f"{size // MIB} MiB"] = {
        "out": out, "back": back, "check": checked, "card": {"before": before, "residue": residue,
                                                             "used_before": used_before,
                                                             "used_between": used_between},
        "evict_command_s": middle - begin, "restore_command_s": end - again, "ps": listed}
    cases.add(f"evict {size / GIB:.4g} GiB", None, out["seconds"],
              *move_checks(machine, size, out, back, checked["mismatches"], residue, before))
    return begin, middle, again, end


@step("l.evict_8", "life", sim=True, cost=35)
def evict_beside_a_neighbour(machine):
    """8 GiB out and back while a neighbour works."""
    cases = Cases()
    size = (96 * MIB) if machine.sim else 8 * GIB
    with programs(Program(machine, "gpu-check-life"), Program(machine, "gpu-check-beside")) as (program, beside):
        beside.ask("load 1ms", 60)
        time.sleep(2.0)
        times = evict_and_restore(machine, program, "gpu-check-life", cases, size)
        alone = beside.rate(times[0] - 1.5, times[0])
        during_out, during_back = beside.rate(times[0], times[1]), beside.rate(times[2], times[3])
    for what, rate in (("evict", during_out), ("restore", during_back)):
        of_alone = rate / alone if alone else 0
        cases.add(f"neighbour during {what}", None, of_alone * 100,
                  Judge(machine).at_least("of alone", of_alone, 0.95))
    return cases.done()


@step("l.evict_40", "life", cost=75)
def evict_40(machine):
    cases = Cases()
    with programs(Program(machine, "gpu-check-life")) as (program,):
        evict_and_restore(machine, program, "gpu-check-life", cases, 40 * GIB)
    return cases.done()


def evict_fast(machine, size):
    """By `--swap fast`: what stays on the card is the context and small blocks, so it is told and not judged."""
    cases, name = Cases(), "gpu-check-life"
    with programs(Program(machine, name, options=("--swap", "fast"))) as (program,):
        held = program.ask(f"hold {size} linear", 120)
        before, _ = card_used(machine, held["pid"])
        out = allot(machine, "evict", name, "--json").document()
        residue, _ = card_used(machine, held["pid"])
        listed = slice_of(machine, name)
        back = allot(machine, "restore", name, "--json").document()
        checked = program.ask("check", 120)
    cases.figures[f"{size // MIB} MiB"] = {"out": out, "back": back, "check": checked, "ps": listed,
                                           "card": {"before": before, "residue": residue}}
    seconds = {what: sum(p["move_seconds"] for p in moved["processes"]) for what, moved in
               (("out", out), ("back", back))}
    speed = {what: moved["bytes"] / 1e9 / seconds[what] if seconds[what] else None for what, moved in
             (("out", out), ("back", back))}
    cases.add(f"evict fast {size / GIB:.4g} GiB", None, out["seconds"], at_most("mismatches", checked["mismatches"], 0),
              at_least("moved MiB", out["bytes"] / MIB, size / MIB), shown("out s", out["seconds"]),
              shown("out GB/s", speed["out"]), shown("back s", back["seconds"]), shown("back GB/s", speed["back"]),
              shown("residue MiB", residue / MIB if residue is not None else None))
    expect(out["way"] == "fast" and back["way"] == "fast", "went another way", cases.figures)
    return cases.done()


step("l.evict_8_fast", "life", sim=True, cost=15)(
    lambda machine: evict_fast(machine, (96 * MIB) if machine.sim else 8 * GIB))
step("l.evict_40_fast", "life", cost=30)(lambda machine: evict_fast(machine, 40 * GIB))


@step("l.evict_works", "life", sim=True, cost=20)
def evicted_at_work(machine):
    """Evicted in the middle of its work, twice; it resumes, its limit holds, and freeze still stops it."""
    cases, name = Cases(), "gpu-check-life"
    with programs(Program(machine, name, options=("--gpu-max", "50"))) as (program,):
        program.ask(f"hold {64 * MIB if machine.sim else GIB}", 120)
        program.ask("load 1ms", 60)
        time.sleep(1.5)
        limited = program.rate(time.monotonic() - 1.0, time.monotonic())
        for _ in range(2):
            out = allot(machine, "evict", name, "--json").document()
            began = time.monotonic()
            time.sleep(1.0)
            ended = time.monotonic()
            back = allot(machine, "restore", name, "--json").document()
        time.sleep(1.6)
        now = time.monotonic()
        again = program.rate(now - 1.2, now)
        inside = program.ask(f"rate {began} {ended}")["ended"]
        slice = slice_of(machine, name)
        allot(machine, "freeze", name)
        allot(machine, "thaw", name)
        checked = program.ask("check", 60)
    cases.figures.update({"out": out, "back": back, "slice": slice})
    process = slice["processes"][0]
    ratio = again / limited if limited else 0
    cases.add("evicted at work", None, ratio * 100, at_most("mismatches", checked["mismatches"], 0),
              at_most("batches evicted", inside, 0),
              (shown if machine.sim else lambda w, v: at_most(w, v - 1, 0.04))("limit after", ratio),
              shown("lock s", out["processes"][0]["lock_seconds"]))
    expect(machine.sim or process["level"] == "channel",
           f"held by {process['level']} ({process['reason']}) after the restore", cases.figures)
    return cases.done()


@step("l.idle", "life", sim=True, cost=15)
def idle_one_gives_way(machine):
    """A run that needs the card gets the memory of an idle slice, which comes back at its next launch."""
    cases, name = Cases(), "gpu-check-life"
    free = machine.gpu_row()["free_bytes"]
    with programs(Program(machine, name, options=("--priority", "low"))) as (program,):
        program.ask(f"hold {64 * MIB if machine.sim else 2 * GIB}", 60)
        time.sleep(1.0)
        options = ("--gpu-mem", str(free - 256 * MIB), "--wait", "--wait-timeout", "30", "--evict-idle", "0.5")
        begin = time.monotonic()
        with programs(Program(machine, "gpu-check-beside", options=options)) as (beside,):
            started = time.monotonic() - begin
            between = slice_of(machine, name)
            begin = time.monotonic()
            checked = program.ask("check", 60)
            back = time.monotonic() - begin
            alive = beside.ask("check", 30)
    cases.figures.update({"started_s": started, "back_s": back, "between": between, "beside": alive})
    cases.add("idle one gives way", None, started, at_most("mismatches", checked["mismatches"], 0),
              at_least("was evicted", 1 if between["evicted"] else 0, 1), shown("back s", back))
    return cases.done()


@step("l.torch", "life", needs=("torch",), cost=60)
def training(machine):
    """A training that is frozen, evicted and restored mid-run ends with the losses of an undisturbed one."""
    name, steps = "gpu-check-life", 150
    command = machine.python("torch_train.py", "transformer")
    cases = Cases()
    plain = Program(machine, "plain", bare=True, command=command)
    undisturbed = plain.ask(str(steps), 120)
    plain.end()
    with programs(Program(machine, name, command=command)) as (program,):
        program.tell(str(steps))
        time.sleep(0.3)
        allot(machine, "freeze", name)
        time.sleep(0.5)
        allot(machine, "thaw", name)
        time.sleep(0.3)
        out = allot(machine, "evict", name, "--json").document()
        time.sleep(1.0)
        back = allot(machine, "restore", name, "--json").document()
        disturbed = program.read(120)
    same = sum(a == b for a, b in zip(undisturbed["losses"], disturbed["losses"]))
    cases.figures.update({"out": out, "back": back, "seconds": [undisturbed["seconds"], disturbed["seconds"]],
                          "last": [undisturbed["losses"][-1], disturbed["losses"][-1]]})
    cases.add("training evicted", steps, same, at_least("losses equal", same, steps),
              shown("out s", out["seconds"]), shown("back s", back["seconds"]))
    return cases.done()


@step("l.fault", "life", sim=True, cost=15)
def fault_beside_a_neighbour(machine):
    """A store to a bad address ends one slice's context and nobody else's."""
    cases = Cases()
    with programs(Program(machine, "gpu-check-life"), Program(machine, "gpu-check-beside")) as (program, beside):
        beside.ask("load 1ms", 60)
        program.ask(f"hold {64 * MIB if machine.sim else GIB}", 60)
        time.sleep(2.5)
        at = time.monotonic()
        answer = program.ask("fault", 30)
        held = slice_of(machine, "gpu-check-life")
        program.end()
        time.sleep(3.1)
        before, after = beside.rate(at - 2.0, at), beside.rate(at + 0.5, at + 2.5)
        during = beside.rate(at, at + 0.5)
        gone = slice_of(machine, "gpu-check-life")
    charged = sum(gpu["used_bytes"] for gpu in gone["gpus"]) if gone else 0
    cases.figures.update({"answer": answer, "held": held, "rates": [before, after]})
    of_before = after / before if before else 0
    # The driver resets the engine for a fault: the whole card stands still for a moment
    # (docs/limits.md).
    lost_ms = (1 - during / before) * 500 if before else None
    cases.add("fault beside", None, of_before * 100,
              Judge(machine).at_least("of before", of_before, NEIGHBOUR),
              at_most("still charged MiB", charged / MIB, 0), shown("lost ms", lost_ms))
    expect(answer["error"] and "700" in answer["error"], f"the fault answered {answer}", cases.figures)
    return cases.done()
