"""(d) training unchanged in value and speed, (e) JAX and CuPy, (f) numba and cudart programs.

Speed: both trainings live at once, each in its own process, and take turns in segments, so that
clocks and temperature are the same for both. The idle one has no work on the GPU and so costs the
other nothing. The figure compares the fastest segment of each process and takes the median over
process pairs: the host's jitter (10 % and more a segment in a virtual machine) only ever slows down.
"""
import json
import subprocess

import warm
from common import GIB, Skip, expect, median, step, stop, wait_for_line
from steps_memory import check_cap, fill_slice

LIMIT = 8 * GIB
SEGMENTS = 5
PROCESS_PAIRS = 3
SEGMENT_S = 0.6
WARM_STEPS = 12
ALLOWED_SLOWER = 0.005


def ask(process, line, timeout=60):
    process.stdin.write(line + "\n")
    process.stdin.flush()
    answer = wait_for_line(process, timeout)
    expect(answer is not None, f"no answer to '{line}'")
    return json.loads(answer)


def train_pair(machine, model):
    """Segments of both trainings in turn: ({plain: [seconds a step]...}, {plain: losses...})."""
    command = machine.python("torch_train.py", model)
    processes = {
        "plain": machine.start(command, bare=True, stdin=subprocess.PIPE),
        "slice": machine.start(machine.in_slice(command, memory="40G"), stdin=subprocess.PIPE)}
    seconds = {name: [] for name in processes}
    losses = {name: [] for name in processes}
    try:
        for process in processes.values():
            expect(wait_for_line(process, 90) is not None, "the training did not start")
        steps = WARM_STEPS
        for segment in range(SEGMENTS + 1):
            order = ("plain", "slice") if segment % 2 else ("slice", "plain")
            for name in order:
                answer = ask(processes[name], str(steps))
                losses[name] += answer["losses"]
                if segment > 0:  # the first one warms up and says how many steps a segment needs
                    seconds[name].append(answer["seconds"] / steps)
            if segment == 0:
                steps = max(WARM_STEPS, round(steps * SEGMENT_S / answer["seconds"]))
    finally:
        for process in processes.values():
            stop(process)
            process.communicate()
    return seconds, losses


def train(machine, model, steady=True):
    warm.settled()
    ratios, best, equal, compared, rates = [], [], True, 0, {"plain": [], "slice": []}
    for _ in range(PROCESS_PAIRS):
        seconds, losses = train_pair(machine, model)
        ratios += [b / a for a, b in zip(seconds["plain"], seconds["slice"])]
        best.append(min(seconds["slice"]) / min(seconds["plain"]))
        for name in rates:
            rates[name] += [1 / s for s in seconds[name]]
        equal = equal and losses["plain"] == losses["slice"]
        compared += len(losses["plain"])
    figures = {"model": model, "steps_per_s_plain": median(rates["plain"]),
               "steps_per_s_slice": median(rates["slice"]), "slower": median(best) - 1,
               "slower_each_pair": [ratio - 1 for ratio in best],
               "slower_median_segment": median(ratios) - 1,
               "spread": [min(ratios) - 1, max(ratios) - 1], "segments": len(ratios),
               "losses_compared": compared, "losses_equal": equal}
    expect(equal, "the losses differ", figures)
    own = max(rates["plain"]) / min(rates["plain"]) - 1
    if not steady and own > 10 * ALLOWED_SLOWER:
        figures["speed_not_judged"] = f"without a slice it differs by {own * 100:.0f} % from itself"
        return figures
    expect(figures["slower"] <= ALLOWED_SLOWER,
           f"{figures['slower'] * 100:.2f} % slower in the slice", figures)
    return figures


@step("d.train_transformer", "programs", needs=("torch",))
def train_transformer(machine):
    return train(machine, "transformer")


@step("d.train_mlp", "programs", needs=("torch",))
def train_mlp(machine):
    """Launch-bound: what the shim adds to a launch would show here first, where the host is quiet enough."""
    return train(machine, "mlp", steady=False)


def program_in_slice(machine, program, env=None, timeout=120):
    figures = fill_slice(machine, machine.python(program), LIMIT, timeout, env)
    expect(figures["exit_status"] == 0, f"exit status {figures['exit_status']}", figures)
    expect(figures["program"]["right"] is True, "the values differ from NumPy's", figures)
    check_cap(figures, None)
    return figures


@step("e.jax_preallocate", "programs", needs=("jax",))
def jax_preallocate(machine):
    figures = program_in_slice(machine, "jax_use.py", env={"XLA_PYTHON_CLIENT_PREALLOCATE": "true"})
    limit = figures["program"]["bytes_limit"]
    if limit is not None:
        expect(limit <= LIMIT, f"JAX took {limit} bytes for its own", figures)
    return figures


@step("e.jax_on_demand", "programs", needs=("jax",))
def jax_on_demand(machine):
    return program_in_slice(machine, "jax_use.py", env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})


@step("e.cupy", "programs", needs=("cupy",))
def cupy(machine):
    figures = program_in_slice(machine, "cupy_use.py")
    view = figures["program"]
    expect(view["total"] == LIMIT, f"memGetInfo total is {view['total']}", figures)
    expect(view["error"].endswith("OutOfMemoryError"), f"the error is {view['error']}", figures)
    return figures


@step("f.numba", "programs", needs=("numba",))
def numba(machine):
    alone = machine.run(machine.python("numba_use.py"), 60, bare=True)
    if alone.status != 0:
        raise Skip(f"numba does not run here without a slice either: {alone.err.strip().splitlines()[-1][:100]}")
    figures = program_in_slice(machine, "numba_use.py")
    expect(figures["program"]["total"] == LIMIT, "total is not the limit", figures)
    return figures


def cudart(machine, kind):
    status, errors = warm.wait("cudart-" + kind, 60)
    expect(status == 0, f"nvcc: {errors[-400:]}")
    ran = machine.run(machine.in_slice([warm.program(machine, kind)], memory=2 * GIB), 60)
    view = ran.json()
    figures = {"limit_bytes": 2 * GIB, "exit_status": ran.status, "program": view}
    expect(ran.status == 0, f"exit status {ran.status}: {ran.err[-300:]}", figures)
    expect(view["total"] == 2 * GIB, f"cudaMemGetInfo total is {view['total']}", figures)
    expect(view["refused_with"] == "cudaErrorMemoryAllocation",
           f"refused with {view['refused_with']}", figures)
    expect(view["granted"] <= 2 * GIB, "more granted than the slice has", figures)
    expect(view["right"] is True, "the kernel's values are wrong", figures)
    return figures


@step("f.cudart_static", "programs", needs=("nvcc",))
def cudart_static(machine):
    return cudart(machine, "static")


@step("f.cudart_shared", "programs", needs=("nvcc",))
def cudart_shared(machine):
    return cudart(machine, "shared")
