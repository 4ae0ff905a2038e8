"""What a slice without limits on time costs: at a launch, and in wake-ups of its threads."""
import os
import time

from common import expect, step, stop
from time_cases import Cases, at_most, shown

WATCH_S = 5.0
WAKEUPS = 10.0


@step("t.hooks", "time_overhead", sim=True, cost=4, quick=True)
def launch_cost(machine):
    command = [machine.bench, "hooks", "--json", "--seconds", "0.8", "--live", "10"]
    result = machine.run(machine.in_slice(command), 90).json()
    cases = Cases()
    cases.figures["result"] = result
    cases.add("unlimited launch", None, None, at_most("added ns", max(0.0, result["launch"]["added_ns"]), 50),
              shown("driver ns", result["launch"]["real_ns"]))
    return cases.done()


def child_named(pid, name):
    """The child of a process that runs that program; None while there is none."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as stat:
                head, _, rest = stat.read().rpartition(")")
                if int(rest.split()[1]) == pid and head.partition("(")[2] == name:
                    return int(entry)
        except (OSError, ValueError, IndexError):
            continue
    return None


def switches(pid):
    """{thread: (name, times it was switched to)} of all threads but the first, which works."""
    out = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        if int(task) == pid:
            continue
        try:
            with open(f"/proc/{pid}/task/{task}/status") as file:
                fields = dict(line.split(":", 1) for line in file if ":" in line)
        except OSError:
            continue
        count = int(fields["voluntary_ctxt_switches"]) + int(fields["nonvoluntary_ctxt_switches"])
        out[int(task)] = (fields["Name"].strip(), count)
    return out


def working(machine, command, bare):
    """(process, pid of the program) once it runs."""
    process = machine.start(command if bare else machine.in_slice(command), bare=bare)
    until = time.monotonic() + 30
    pid = process.pid if bare else None
    while pid is None and time.monotonic() < until and process.poll() is None:
        pid = child_named(process.pid, os.path.basename(machine.bench)[:15])
        time.sleep(0.05)
    return process, pid


def wakeups(machine, command):
    """Wake-ups a second of each thread beside the first, while the program works: without a slice and in one,
    both at once."""
    started = {which: working(machine, command, which == "bare") for which in ("bare", "slice")}
    try:
        expect(None not in [pid for _, pid in started.values()], "the program did not start")
        time.sleep(2.0)  # past the contexts' start and the agent's look at the driver
        before = {which: switches(pid) for which, (_, pid) in started.items()}
        time.sleep(WATCH_S)
        after = {which: switches(pid) for which, (_, pid) in started.items()}
    finally:
        for process, _ in started.values():
            stop(process)
            process.communicate()
    return {which: {str(task): {"name": name,
                                "per_second": (count - before[which].get(task, (name, 0))[1]) / WATCH_S}
                    for task, (name, count) in threads.items()} for which, threads in after.items()}


@step("t.wakeups", "time_overhead", sim=True, cost=8)
def thread_wakeups(machine):
    load = [machine.bench, "load", "--seconds", "60"]
    seen = wakeups(machine, load)
    bare, sliced = seen["bare"], seen["slice"]
    most = {which: max([thread["per_second"] for thread in threads.values()] or [0.0])
            for which, threads in (("bare", bare), ("slice", sliced))}
    cases = Cases()
    cases.figures.update({"bare": bare, "slice": sliced})
    # The driver's own threads are in both; those of the software GPU work for the kernels.
    check = at_most("a second", most["slice"], max(WAKEUPS, most["bare"]))
    cases.add("unlimited wake-ups", None, None, dict(check, kind="shown") if machine.sim else check,
              shown("without a slice", most["bare"]), shown("threads", len(sliced)),
              shown("threads bare", len(bare)))
    return cases.done()
