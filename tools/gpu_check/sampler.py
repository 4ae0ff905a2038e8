"""Watches NVML's per-process memory from outside every slice, every 20 ms.

Run as a program it reads commands from stdin: `group NAME PID` adds a group whose members are PID and
its descendants, `stop` (or the end of input) ends it. It then prints, for each group, the highest
sum of its members' figures that any one sample showed. What is in no group counts as "other". The
sum is taken inside one NVML answer, so that it never adds up figures of different instants.

Sampler, below, is the other side: it starts this program unshimmed and talks to it.
"""
import json
import os
import select
import subprocess
import sys
import time

PERIOD_S = 0.02


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def group_of(pid, groups):
    for _ in range(64):
        if pid in groups:
            return groups[pid]
        if pid <= 1:
            return None
        pid = parent_of(pid)
    return None


class Watch:
    def __init__(self):
        self.groups = {}
        self.known = {}
        self.highest = {}
        self.per_process = {}
        self.samples = 0
        self.errors = 0
        self.longest_gap_s = 0.0

    def add(self, processes):
        self.samples += 1
        sums = {}
        for pid, size in processes:
            group = self.known.get(pid) or group_of(pid, self.groups)
            if group is not None:
                self.known[pid] = group
            group = group or "other"
            sums[group] = sums.get(group, 0) + size
            self.per_process[pid] = max(self.per_process.get(pid, 0), size)
        for group, size in sums.items():
            self.highest[group] = max(self.highest.get(group, 0), size)

    def result(self):
        return {"samples": self.samples, "errors": self.errors, "period_ms": PERIOD_S * 1e3,
                "longest_gap_ms": round(self.longest_gap_s * 1e3, 1), "max_bytes": self.highest,
                "max_bytes_by_pid": self.per_process}


def main():
    from nvml import Nvml, NvmlError
    gpu = Nvml(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    watch = Watch()
    print("ready", flush=True)
    buffer = ""
    last = due = time.monotonic()
    while True:
        try:
            watch.add(gpu.processes())
        except NvmlError:
            watch.errors += 1
        now = time.monotonic()
        watch.longest_gap_s = max(watch.longest_gap_s, now - last)
        last = now
        due = max(due + PERIOD_S, now)
        ready, _, _ = select.select([0], [], [], max(0.0, due - time.monotonic()))
        if not ready:
            continue
        piece = os.read(0, 4096).decode()
        buffer += piece
        *lines, buffer = buffer.split("\n")
        for line in lines:
            words = line.split()
            if words[:1] == ["group"]:
                watch.groups[int(words[2])] = words[1]
        if not piece or "stop" in lines:
            print(json.dumps(watch.result()), flush=True)
            return


class Sampler:
    """with Sampler(machine) as s: s.group("a", pid) ...; then s.result has the figures."""

    def __init__(self, machine):
        self.machine = machine
        self.result = {}

    def __enter__(self):
        self.process = self.machine.start([sys.executable, os.path.abspath(__file__),
                                           str(self.machine.gpu or 0)], bare=True,
                                          stdin=subprocess.PIPE)
        first = self.process.stdout.readline()
        if first.strip() != "ready":
            raise RuntimeError("the NVML sampler does not start: " + self.process.stderr.read()[-500:])
        return self

    def group(self, name, pid):
        self.process.stdin.write(f"group {name} {pid}\n")
        self.process.stdin.flush()

    def __exit__(self, *_):
        try:
            out, _ = self.process.communicate("stop\n", timeout=10)
            self.result = json.loads(out.strip().splitlines()[-1])
        except (subprocess.TimeoutExpired, ValueError, IndexError, BrokenPipeError):
            self.process.kill()
            self.process.communicate()
        return False

    def highest(self, group):
        return self.result.get("max_bytes", {}).get(group, 0)


if __name__ == "__main__":
    main()
