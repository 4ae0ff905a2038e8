#!/usr/bin/env python3
"""Writes the machines that the tests read instead of this one: trees of sysfs and procfs files.

    machines.py OUTPUT_FOLDER [NAME ...]

Each is described by a few numbers and written out file by file in the form that Linux 6.x has, so the
repository holds one page instead of some ten thousand one-line files. The shapes are those that real
placement code has stumbled over; what is odd about each stands beside it.
"""
import pathlib
import shutil
import sys


def as_list(numbers):
    """{0,1,2,5} -> "0-2,5", as the kernel writes sets."""
    out, run = [], []
    for n in sorted(numbers) + [None]:
        if run and n != run[-1] + 1 if n is not None else run:
            out.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
        if n is not None:
            run.append(n)
    return ",".join(out)


class Machine:
    """packages x nodes x L3 domains x cores x threads, numbered as firmware does: first thread of
    every core first, then all second threads (smt_last), or threads of a core side by side."""

    def __init__(self, packages=1, nodes=1, l3=1, cores=4, threads=1, smt_last=True, numa=True,
                 l3_size="32768K", l3_reported=True, l3_spans_nodes=False, offline=(), isolated=(),
                 allowed=None, mems=None, memory_gib=64, gpus=(), memory_only_nodes=(),
                 memoryless=(), possible_extra=0):
        self.__dict__.update(locals())
        total_cores = packages * nodes * l3 * cores
        self.cpus = []
        for core in range(total_cores):
            domain = core // cores
            node = domain // l3
            package = node // nodes
            for thread in range(threads):
                number = core + thread * total_cores if smt_last else core * threads + thread
                self.cpus.append(dict(id=number, core=core, domain=domain, node=node, package=package))
        self.online = {c["id"] for c in self.cpus} - set(offline)

    def sharing(self, cpu, key):
        return {c["id"] for c in self.cpus if c[key] == cpu[key]} & self.online

    def write(self, root):
        def put(path, text):
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")

        present = {c["id"] for c in self.cpus}
        base = "sys/devices/system/cpu"
        put(f"{base}/online", as_list(self.online))
        put(f"{base}/offline", as_list(present - self.online))
        put(f"{base}/present", as_list(present))
        put(f"{base}/possible", as_list(range(len(present) + self.possible_extra)))
        put(f"{base}/isolated", as_list(self.isolated))
        put(f"{base}/smt/active", int(self.threads > 1))
        for cpu in self.cpus:
            here = f"{base}/cpu{cpu['id']}"
            if cpu["id"] != 0:
                put(f"{here}/online", int(cpu["id"] in self.online))
            if cpu["id"] not in self.online:
                continue  # the kernel removes topology and cache with the CPU
            put(f"{here}/topology/physical_package_id", cpu["package"])
            put(f"{here}/topology/core_id", cpu["core"] % (self.cores * self.l3 * self.nodes))
            put(f"{here}/topology/core_cpus_list", as_list(self.sharing(cpu, "core")))
            put(f"{here}/topology/thread_siblings_list", as_list(self.sharing(cpu, "core")))
            put(f"{here}/topology/die_cpus_list", as_list(self.sharing(cpu, "package")))
            put(f"{here}/topology/package_cpus_list", as_list(self.sharing(cpu, "package")))
            caches = [(1, "Data", "48K", "core"), (1, "Instruction", "32K", "core"), (2, "Unified", "2048K", "core")]
            if self.l3_reported:
                caches.append((3, "Unified", self.l3_size, "package" if self.l3_spans_nodes else "domain"))
            for index, (level, kind, size, key) in enumerate(caches):
                put(f"{here}/cache/index{index}/level", level)
                put(f"{here}/cache/index{index}/type", kind)
                put(f"{here}/cache/index{index}/size", size)
                put(f"{here}/cache/index{index}/shared_cpu_list", as_list(self.sharing(cpu, key)))
        node_ids = sorted({c["node"] for c in self.cpus} | set(self.memory_only_nodes))
        if self.numa:
            put("sys/devices/system/node/online", as_list(node_ids))
            for node in node_ids:
                here = f"sys/devices/system/node/node{node}"
                mine = {c["id"] for c in self.cpus if c["node"] == node} & self.online
                put(f"{here}/cpulist", as_list(mine))
                kib = 0 if node in self.memoryless else self.memory_gib * 1024 * 1024
                put(f"{here}/meminfo", f"Node {node} MemTotal:       {kib} kB\nNode {node} MemFree:        {kib // 2} kB")
                put(f"{here}/distance", " ".join(str(self.distance(node, other)) for other in node_ids))
        for bdf, node in self.gpus:
            here = f"sys/bus/pci/devices/{bdf}"
            local = {c["id"] for c in self.cpus if c["node"] == node} if node >= 0 else present
            put(f"{here}/vendor", "0x10de")
            put(f"{here}/class", "0x030200")
            put(f"{here}/numa_node", node)
            put(f"{here}/local_cpulist", as_list(local & self.online))
            # the audio function of the same card and a bridge: not GPUs
            put(f"{here[:-1]}1/vendor", "0x10de")
            put(f"{here[:-1]}1/class", "0x040300")
            put(f"{here[:-1]}1/numa_node", node)
        put("sys/bus/pci/devices/0000:00:00.0/vendor", "0x8086")
        put("sys/bus/pci/devices/0000:00:00.0/class", "0x060000")
        allowed = self.online if self.allowed is None else set(self.allowed)
        mems = (set(node_ids) if self.numa else {0}) if self.mems is None else set(self.mems)
        put("proc/self/status", f"Name:\ttest\nCpus_allowed_list:\t{as_list(allowed)}\nMems_allowed_list:\t{as_list(mems)}")

    def distance(self, a, b):
        if a == b:
            return 10
        return 12 if a // self.nodes == b // self.nodes and max(a, b) < self.packages * self.nodes else 21


MACHINES = {
    # A workstation: 8 cores, second threads numbered last.
    "desktop": Machine(cores=8, threads=2, gpus=[("0000:01:00.0", 0)]),
    # The usual training server: two sockets, four GPUs, two a socket.
    "two_sockets": Machine(packages=2, cores=32, threads=2, memory_gib=512,
                           gpus=[("0000:17:00.0", 0), ("0000:3b:00.0", 0), ("0000:98:00.0", 1), ("0000:ca:00.0", 1)]),
    # AMD: eight L3 caches in one node; node-granular locality says nothing about the cache.
    "amd_l3": Machine(l3=8, cores=8, threads=2, memory_gib=256, gpus=[("0000:41:00.0", 0)]),
    # Sub-NUMA clustering: the L3 is reported for the whole socket, the memory is halved.
    "sub_numa": Machine(packages=2, nodes=2, cores=12, threads=2, l3_spans_nodes=True,
                        gpus=[("0000:27:00.0", 1), ("0000:a3:00.0", 3)]),
    # Node 1 has CPUs and no memory; node 2 has memory and no CPUs (and a GPU hangs there).
    "memoryless": Machine(nodes=2, cores=4, memoryless=(1,), memory_only_nodes=(2,), gpus=[("0000:05:00.0", 2)]),
    # A cloud VM: no node folders, no L3 reported, the GPU's place unknown.
    "vm_flat": Machine(cores=8, threads=2, smt_last=False, numa=False, l3_reported=False,
                       gpus=[("0000:00:05.0", -1)], possible_extra=8),
    # CPU 5 was offline at boot: its sibling 1 is a core of one thread.
    "one_offline": Machine(cores=4, threads=2, offline=(5,), gpus=[("0000:01:00.0", 0)]),
    # A container that may use six CPUs of node 0 and whose GPU is at node 1.
    "container": Machine(packages=2, cores=8, threads=2, allowed=(2, 3, 4, 18, 19, 20), mems=(0,),
                         gpus=[("0000:3b:00.0", 1), ("0000:5e:00.0", 0)]),
    # Four CPUs kept from the scheduler at boot (isolcpus=).
    "isolated": Machine(cores=8, isolated=(4, 5, 6, 7)),
    # The largest planned for: two sockets, 64 cores each, eight L3 a socket, two threads: 256 CPUs.
    "epyc_256": Machine(packages=2, l3=8, cores=8, threads=2, memory_gib=768,
                        gpus=[(f"0000:{bus:02x}:00.0", i // 4) for i, bus in enumerate(
                            (0x18, 0x2a, 0x3a, 0x5d, 0x9a, 0xab, 0xba, 0xdb))]),
}


def main():
    out = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:] or MACHINES:
        root = out / name
        shutil.rmtree(root, ignore_errors=True)
        MACHINES[name].write(root)
    (out / "stamp").write_text("")


if __name__ == "__main__":
    main()
