"""Work that may run beside the first steps: loading frameworks into the page cache, compiling.

A fresh machine reads PyTorch and JAX from a cold disk for a minute; the steps that only count bytes
can run meanwhile. Steps that time anything call `settled` first.
"""
import os
import subprocess
import sys
import time

from common import PROGRAMS, Skip, stop

_running = {}


def start(machine, kind="memory"):
    for module in ("torch", "jax", "cupy") if kind == "memory" else ("torch",):
        if module not in machine.missing:
            _running[module] = machine.start([sys.executable, "-c", f"import {module}"], bare=True,
                                             env={"CUDA_VISIBLE_DEVICES": ""})
    if kind == "memory" and "nvcc" not in machine.missing:
        for link in ("static", "shared"):
            _running["cudart-" + link] = machine.start(
                ["nvcc", "-O2", "-arch=native", "-cudart", link, "-o", program(machine, link),
                 os.path.join(PROGRAMS, "cudart_program.cu")], bare=True)


def program(machine, kind):
    return os.path.join(machine.scratch, "cudart_" + kind)


def wait(name, timeout):
    """The exit status and errors of one piece of it; None if it was not started."""
    process = _running.get(name)
    if process is None:
        return None
    if process.returncode is None:
        try:
            _, errors = process.communicate(timeout=timeout)
            process.errors = errors
        except subprocess.TimeoutExpired:
            stop(process)
            raise Skip(f"{name}: not ready after {timeout} s")
    return process.returncode, getattr(process, "errors", "")


def settled(timeout=60):
    """Waits until none of it runs any more, so that a timing is not disturbed."""
    until = time.monotonic() + timeout
    for name in list(_running):
        try:
            wait(name, max(1.0, until - time.monotonic()))
        except Skip:
            continue
