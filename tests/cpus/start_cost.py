#!/usr/bin/env python3
"""What `allot run --cpus` adds to the start of a program, against taskset.

    start_cost.py ALLOT [RUNS=200]

The two take turns, so that whatever else the machine does hits both alike.
"""
import os
import subprocess
import sys
import tempfile
import time


def ms(words, env):
    begin = time.perf_counter()
    subprocess.run(words, env=env, stderr=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - begin) * 1e3


def main():
    allot, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
    last = str(max(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, ALLOT_DIR=folder)
        ways = {"taskset": (["taskset", "-c", last, "true"], []),
                "allot run --cpus": ([allot, "run", "--cpus", last + ",", "--", "true"], [])}
        for _ in range(runs):
            for words, times in ways.values():
                times.append(ms(words, env))
    for name, (_, times) in ways.items():
        times.sort()
        print(f"{name:18} p50 {times[len(times) // 2]:6.2f} ms  p90 {times[len(times) * 9 // 10]:6.2f} ms  n {runs}")


if __name__ == "__main__":
    main()
