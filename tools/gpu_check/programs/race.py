"""race.py PROCESSES ROUNDS BLOCK_BYTES: processes of one slice race to its cap, round after round.

Each round: all start together, each takes blocks until it is refused, all wait, one adds up what was
granted and asks the driver what is left, all free. The barrier is a counter in shared memory that is
polled: it must work between forked processes and end when one of them dies.
"""
import json
import mmap
import os
import struct
import sys
import time

from driver import OUT_OF_MEMORY, Driver

WAIT_S = 60


class Board:
    """Words of 8 bytes shared by the processes: word 0 stops all, then one phase and one granted sum
    for each of them."""

    def __init__(self, processes):
        self.processes = processes
        self.memory = mmap.mmap(-1, 8 * (2 + 2 * processes))

    def get(self, word):
        return struct.unpack_from("<q", self.memory, 8 * word)[0]

    def put(self, word, value):
        struct.pack_into("<q", self.memory, 8 * word, value)

    def arrive(self, index, phase):
        self.put(2 + index, phase)
        until = time.monotonic() + WAIT_S
        while any(self.get(2 + other) < phase for other in range(self.processes)):
            if self.get(0) or time.monotonic() > until:
                self.put(0, 1)
                sys.exit(3)
            time.sleep(0.0005)


def main():
    processes, rounds, block = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    board = Board(processes)
    children = []
    index = 0
    for index in range(processes):
        if index == processes - 1:
            break  # the last one is this process itself, which also keeps the books
        child = os.fork()
        if child == 0:
            break
        children.append(child)
    books = index == processes - 1
    report = {"rounds": 0, "max_granted_bytes": 0, "min_granted_bytes": None, "max_left_bytes": 0,
              "errors": []}
    try:
        driver = Driver()
        phase = 0
        for _ in range(rounds):
            phase += 1
            board.arrive(index, phase)
            held, result = [], 0
            while result == 0:
                pointer, result = driver.alloc(block)
                if result == 0:
                    held.append(pointer)
            board.put(2 + processes + index, len(held) * block)
            if result != OUT_OF_MEMORY:
                report["errors"].append(result)
                board.put(1, result)
            phase += 1
            board.arrive(index, phase)
            if books:
                granted = sum(board.get(2 + processes + other) for other in range(processes))
                left, _ = driver.memory()
                report["rounds"] += 1
                report["max_granted_bytes"] = max(report["max_granted_bytes"], granted)
                lowest = report["min_granted_bytes"]
                report["min_granted_bytes"] = granted if lowest is None else min(lowest, granted)
                report["max_left_bytes"] = max(report["max_left_bytes"], left)
                if board.get(1):
                    report["errors"].append(board.get(1))
            phase += 1
            board.arrive(index, phase)
            for pointer in held:
                driver.free(pointer)
    finally:
        if books:
            board.put(0, 1 if report["rounds"] < rounds else 0)
            for child in children:
                os.waitpid(child, 0)
            print(json.dumps(report), flush=True)


main()
