"""(l) Children keep to the slice: emptied environments, fork and exec, worker processes."""
import os

from common import GIB, expect, step

LIMIT = 2 * GIB
OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"


def held_to_limit(machine, command, timeout=60):
    ran = machine.run(machine.in_slice(command, memory=LIMIT), timeout)
    report = ran.json()
    figures = {"limit_bytes": LIMIT, "exit_status": ran.status, "program": report}
    expect(report["refused_with"] == OUT_OF_MEMORY, f"refused with {report['refused_with']}", figures)
    expect(report["granted_bytes"] <= LIMIT, f"{report['granted_bytes']} bytes granted", figures)
    return figures


def alloc(machine):
    return [machine.bench, "alloc", "--step", "2M", "--limit", "4G", "--json"]


@step("l.env_i", "programs", sim=True)
def emptied_environment(machine):
    return held_to_limit(machine, ["env", "-i", *alloc(machine)])


@step("l.shell_chain", "programs", sim=True)
def shell_chain(machine):
    line = " ".join(alloc(machine))
    return held_to_limit(machine, ["bash", "-c", f"sh -c '(exec env -i bash -c \"{line}\")'"])


@step("l.subprocess", "programs", sim=True)
def python_subprocess(machine):
    return held_to_limit(machine, machine.python("spawn_child.py", *alloc(machine)))


@step("l.torch_loader", "programs", needs=("torch",))
def torch_loader(machine):
    ran = machine.run(machine.in_slice(machine.python("torch_loader.py"), memory=8 * GIB), 120)
    view = ran.json()
    figures = {"exit_status": ran.status, "program": view}
    expect(ran.status == 0, f"exit status {ran.status}: {ran.err[-400:]}", figures)
    expect(view["batches"] == 16 and view["sum"] == view["expected"], "batches were lost", figures)
    expect(view["child_total"] == 8 * GIB, f"a spawned child sees {view['child_total']} bytes", figures)
    return figures


@step("l.exit_status", "programs", sim=True)
def exit_status(machine):
    figures = {}
    for name, command, wanted in (("own", ["sh", "-c", "exit 42"], 42),
                                  ("killed", ["sh", "-c", "kill -9 $$"], 128 + 9),
                                  ("not_found", [os.path.join(machine.scratch, "nothing")], 127)):
        figures[name] = machine.run(machine.in_slice(command, memory=LIMIT), 20).status
        expect(figures[name] == wanted,
               f"{name}: exit status {figures[name]}, not {wanted}", figures)
    return figures
