"""(b) Inside a slice everything that says how much memory there is shows the slice."""
import csv
import io
import json
import re

from common import GIB, MIB, expect, step, stop, wait_for_line
from sampler import Sampler

LIMIT = 8 * GIB
HELD = GIB


def beside_holder(machine, command, timeout=60):
    """Runs `command` in a slice in which another process holds HELD bytes; returns (Ran, holder's
    report, the holder's own figure as NVML shows it outside)."""
    holder = f"{machine.bench} alloc --step 64M --limit {HELD} --hold 60 --json"
    ready = f"{machine.scratch}/holder"
    script = (f"rm -f {ready}; {holder} >{ready} & holder=$!; "
              f"for i in $(seq 300); do grep -q '^{{' {ready} && break; sleep 0.1; done; "
              "\"$@\"; status=$?; kill $holder; wait $holder 2>/dev/null; exit $status")
    with Sampler(machine) as sampler:
        process = machine.start(machine.in_slice(["bash", "-c", script, "bash", *command],
                                                 memory=LIMIT))
        sampler.group("slice", process.pid)
        ran = machine.finish(process, timeout)
    with open(ready) as file:
        report = json.loads(file.readline() or "{}")
    outside = sampler.result.get("max_bytes_by_pid", {}).get(str(report.get("pid")), 0)
    return ran, report, outside


@step("b.nvml", "views", sim=True)
def nvml(machine):
    ran, report, outside = beside_holder(machine, machine.python("nvml_view.py"))
    view = ran.json()
    figures = {"limit_bytes": LIMIT, "view": view, "holder_bytes_outside": outside}
    for name in ("memory", "memory_v2"):
        memory = view[name]
        if isinstance(memory, str):
            figures["note"] = f"{name}: {memory}"
            continue
        expect(memory["total"] == LIMIT, f"{name}: total is {memory['total']}", figures)
        expect(HELD <= memory["used"] <= LIMIT, f"{name}: used is {memory['used']}", figures)
        expect(memory["free"] + memory["used"] <= memory["total"] + 2 * MIB,
               f"{name}: free + used exceed total", figures)
    expect(abs(view["memory"]["used"] - outside) <= 4 * MIB,
           f"used is {view['memory']['used']}, NVML outside says {outside}", figures)
    expect(any(entry["pid"] == report["pid"] for entry in view["processes"]),
           "the holder is not in the process list", figures)
    return figures


@step("b.cuMemGetInfo", "views", sim=True)
def driver_figures(machine):
    ran, _, outside = beside_holder(machine, machine.python("memory_view.py"))
    view = ran.json()
    figures = {"limit_bytes": LIMIT, "view": view, "holder_bytes_outside": outside}
    expect(view["total"] == LIMIT, f"total is {view['total']}", figures)
    expect(view["device_total"] == LIMIT, f"cuDeviceTotalMem is {view['device_total']}", figures)
    expect(view["free"] <= LIMIT - HELD, f"free is {view['free']}", figures)
    expect(view["free_after"] == view["free"] - 64 * MIB,
           f"64 MiB moved free by {view['free'] - view['free_after']}", figures)
    expect(view["free_end"] == view["free"], "free did not come back", figures)
    return figures


@step("b.nvidia_smi", "views", needs=("nvidia-smi",))
def nvidia_smi(machine):
    query = ["nvidia-smi", "--query-gpu=memory.total,memory.used,memory.free",
             "--format=csv,noheader,nounits"]
    ran, _, outside = beside_holder(machine, query)
    figures = {"limit_bytes": LIMIT, "query": ran.out.strip(), "holder_bytes_outside": outside}
    expect(ran.status == 0, f"nvidia-smi ended with {ran.status}: {ran.err[-300:]}", figures)
    total, used, free = [int(cell) for cell in next(csv.reader(io.StringIO(ran.out)))]
    expect(total == LIMIT // MIB, f"memory.total is {total} MiB", figures)
    expect(abs(used - outside // MIB) <= 4, f"memory.used is {used} MiB, outside {outside // MIB}", figures)
    expect(free <= total - used + 2, f"memory.free is {free} MiB", figures)
    return figures


@step("b.nvidia_smi_screen", "views", needs=("nvidia-smi",))
def nvidia_smi_screen(machine):
    ran, report, outside = beside_holder(machine, ["nvidia-smi"])
    figures = {"limit_bytes": LIMIT, "screen": ran.out, "holder_bytes_outside": outside}
    expect(ran.status == 0, f"nvidia-smi ended with {ran.status}: {ran.err[-300:]}", figures)
    found = re.search(r"(\d+)MiB\s*/\s*(\d+)MiB", ran.out)
    expect(found, "no memory figures on the screen", figures)
    used, total = int(found.group(1)), int(found.group(2))
    expect(total == LIMIT // MIB, f"the screen says {total} MiB", figures)
    expect(HELD // MIB <= used <= LIMIT // MIB, f"the screen says {used} MiB used", figures)
    figures["holder_on_screen"] = str(report.get("pid")) in ran.out
    return figures


@step("b.set_while_running", "views", sim=True)
def set_while_running(machine):
    """`allot set --gpu-mem` of a running slice: the view follows, nothing held is lost."""
    name = "gpu-check-set"
    process = machine.start(machine.in_slice(machine.python("memory_view.py", "watch"),
                                             memory=4 * GIB, name=name))
    figures = {}
    try:
        first = wait_for_line(process, 30)
        expect(first is not None, "the program did not report")
        figures["before"] = json.loads(first)
        changed = machine.run([machine.allot, "set", name, "--gpu-mem", str(2 * GIB)], 20)
        expect(changed.status == 0, f"allot set ended with {changed.status}: {changed.err[-300:]}", figures)
        second = wait_for_line(process, 15, '{"changed"')
        expect(second is not None, "the program never saw the change", figures)
        figures["after"] = json.loads(second)
        expect(figures["before"]["total"] == 4 * GIB, "total before is not the limit", figures)
        expect(figures["after"]["total"] == 2 * GIB, "total after is not the new limit", figures)
        expect(figures["after"]["refused_with"] == 2, "an allocation above the new limit went through",
               figures)
    finally:
        stop(process)
        process.communicate()
    return figures


@step("b.torch", "views", needs=("torch",))
def torch_figures(machine):
    ran, _, outside = beside_holder(machine, machine.python("torch_view.py"), 120)
    view = ran.json()
    figures = {"limit_bytes": LIMIT, "view": view, "holder_bytes_outside": outside}
    expect(view["total"] == LIMIT, f"mem_get_info total is {view['total']}", figures)
    expect(view["free"] <= LIMIT - HELD, f"mem_get_info free is {view['free']}", figures)
    expect(view["properties_total"] == LIMIT,
           f"get_device_properties says {view['properties_total']}", figures)
    return figures


@step("c.torch_out_of_memory", "views", needs=("torch",))
def torch_out_of_memory(machine):
    ran = machine.run(machine.in_slice(machine.python("torch_oom.py"), memory=LIMIT), 90)
    view = ran.json()
    figures = {"limit_bytes": LIMIT, "exit_status": ran.status, "program": view}
    expect(view["error"] == "torch.OutOfMemoryError", f"the error is {view['error']}", figures)
    expect("8.00 GiB" in view["message"], "the error does not name the slice's size", figures)
    expect(view["after"] is True, "the program did not continue", figures)
    expect(ran.status == 0, f"exit status {ran.status}: {ran.err[-300:]}", figures)
    return figures
