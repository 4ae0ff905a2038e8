"""(h) the driver table against this machine's driver and toolkit, (i) cuGetProcAddress as it is bare.

(i) asks both a bare process and one in a slice for every driver symbol, in several versions and stream
modes. Results and statuses must be equal. Addresses differ between processes; what must hold for each
name is that two queries which get the same entry from the bare driver get the same one in the slice,
and two which get different ones (another version, another stream mode) get different ones.
"""
import json
import os
import sys

from common import Skip, expect, step


@step("h.table_and_toolkit", "driver", sim=True)
def table_and_toolkit(machine):
    tool = os.path.join(machine.root, "tools", "driver_parity.py")
    if not os.path.exists(tool):
        raise Skip("tools/driver_parity.py is not there")
    command = [sys.executable, tool]
    if not machine.sim:  # the software GPU exports what the table says, which would prove nothing
        for api, library, prefix in (("cuda", "libcuda.so.1", "cu"), ("nvml", "libnvidia-ml.so.1", "nvml")):
            exports = machine.run(machine.python("proc_addresses.py", "exports", library, prefix), 60,
                                  bare=True).json()
            listing = os.path.join(machine.scratch, api + ".symbols")
            with open(listing, "w") as file:
                file.write("\n".join(exports["symbols"]) + "\n")
            command += [f"--{api}-symbols", listing]
    ran = machine.run(command, 60, bare=True)
    figures = {"exit_status": ran.status, "output": (ran.out + ran.err)[-4000:]}
    if ran.status == 77:
        raise Skip((ran.out + ran.err).strip().splitlines()[-1] if ran.out + ran.err else "nothing to compare")
    expect(ran.status == 0, f"the table differs: {(ran.out + ran.err).strip()[-300:]}", figures)
    return figures


@step("h.driver_exports", "driver", sim=True)
def driver_exports(machine):
    """Every cu* symbol the driver exports is in the shim's exports, so that link-time users find it."""
    names = {}
    for where, bare in (("driver", True), ("slice", False)):
        command = machine.python("proc_addresses.py", "exports", "libcuda.so.1", "cu")
        ran = machine.run(command if bare else machine.in_slice(command, memory="2G"), 60, bare=bare)
        names[where] = ran.json()
    driver, shim = set(names["driver"]["symbols"]), set(names["slice"]["symbols"])
    figures = {"library_bare": names["driver"]["library"], "library_slice": names["slice"]["library"],
               "driver": len(driver), "slice": len(shim), "lacking": sorted(driver - shim),
               "more": sorted(shim - driver)}
    expect(names["driver"]["library"] != names["slice"]["library"], "the slice has the bare driver", figures)
    expect(not figures["lacking"],
           f"{len(figures['lacking'])} symbols of the driver are not exported: {figures['lacking'][:5]}",
           figures)
    return figures


@step("i.cuGetProcAddress", "driver", sim=True)
def proc_addresses(machine):
    exports = machine.run(machine.python("proc_addresses.py", "exports", "libcuda.so.1", "cu"), 60, bare=True).json()
    names = os.path.join(machine.scratch, "symbols.json")
    with open(names, "w") as file:
        json.dump(exports["symbols"], file)
    command = machine.python("proc_addresses.py", "query", names)
    answers = {"bare": machine.run(command, 90, bare=True).json(),
               "slice": machine.run(machine.in_slice(command, memory="2G"), 90).json()}
    bare, sliced = answers["bare"]["answers"], answers["slice"]["answers"]
    differences, forward, backward = [], {}, {}
    for key, (result, status, entry) in bare.items():
        other_result, other_status, other = sliced.get(key, (None, None, None))
        if (result, status) != (other_result, other_status):
            differences.append(f"{key}: {result}/{status} became {other_result}/{other_status}")
        elif (entry == 0) != (other == 0):
            differences.append(f"{key}: null on one side only")
        elif entry and (forward.setdefault((key.split()[0], entry), other) != other or
                        backward.setdefault((key.split()[0], other), entry) != entry):
            differences.append(f"{key}: another variant than the bare driver's")
    figures = {"queries": len(bare), "entries": len(forward), "differences": differences[:200],
               "difference_count": len(differences),
               "moved": answers["slice"]["outside"], "microseconds_bare": answers["bare"]["us"],
               "microseconds_slice": answers["slice"]["us"]}
    expect(len(bare) > 1000, "too few queries were answered", figures)
    expect(not differences, f"{len(differences)} answers differ: {differences[:2]}", figures)
    return figures
