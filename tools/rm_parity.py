#!/usr/bin/env python3
"""Compares src/driver/rm_abi.h with every published version of the kernel module.

GPU time rests on layouts and numbers of RM calls that no toolkit's headers have. NVIDIA publishes them
in open-gpu-kernel-modules, one tag for each driver version. For each tag this program holds against
each other

  layouts   two probe programs, one with the tag's headers and one with ours, print every size, offset
            and number that ours declares
  rights    every control that allot makes may be made by everybody
  table     src/driver/rm_branches.h names the branch, its first and its last tag and how many there are

A clone is looked for in $ALLOT_RM_SOURCE; no work tree is needed. Without one the exit status is 77,
which ctest shows as skipped. rm_parity_test.py runs it against small made-up clones. Standard library
only.
"""
import argparse
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from driver_layout import Compiler, parse_layout, probe_source  # noqa: E402  (stands beside this file)

SKIPPED = 77
SDK = "src/common/sdk/nvidia/inc"
UNIX = "src/nvidia/arch/nvalloc/unix/include"
CONTROL_FLAGS = "src/nvidia/inc/kernel/rmapi/control.h"
GENERATED = ("src/nvidia/generated/g_subdevice_nvoc.c",
             "src/nvidia/generated/g_kernel_channel_group_api_nvoc.c")
HEADERS = ("nvtypes.h", "nvstatus.h", "nvos.h", "nv-ioctl-numbers.h", "nv_escape.h", "class/cl0000.h",
           "class/cl0080.h", "class/cl2080.h", "class/cl2080_notification.h", "class/cla06c.h",
           "class/clc36f.h", "class/clc46f.h", "class/clc56f.h", "class/clc86f.h", "class/clc96f.h",
           "class/clca6f.h", "ctrl/ctrla06c.h", "ctrl/ctrl2080/ctrl2080fifo.h")
PROLOGUE = "\n".join(f"#if __has_include(<{name}>)\n#include <{name}>\n#endif" for name in HEADERS)

# Younger than the oldest branch in the table, with the branch that has it first.
SINCE = {"BLACKWELL_CHANNEL_GPFIFO_A": 570, "BLACKWELL_CHANNEL_GPFIFO_B": 570,
         "NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS": 575}
CONTROLS = {"SET_TIMESLICE": "0xa06c0103", "GET_TIMESLICE": "0xa06c0104", "DISABLE_CHANNELS": "0x2080110b"}


def version_key(tag):
    return [int(part) for part in tag.split(".")]


class Clone:
    """A git repository with a tag for each driver version."""

    def __init__(self, folder):
        self.folder = folder

    def _git(self, *words):
        return subprocess.run(["git", "-C", str(self.folder), *words], capture_output=True, check=True).stdout

    def tags(self):
        names = self._git("tag").decode().split()
        return sorted((name for name in names if re.fullmatch(r"\d+(\.\d+)+", name)), key=version_key)

    def unpack(self, tag, folder):
        there = set(self._git("ls-tree", "-r", "--name-only", tag).decode().split("\n"))
        files = [name for name in (CONTROL_FLAGS, *GENERATED) if name in there]
        with tarfile.open(fileobj=io.BytesIO(self._git("archive", tag, SDK, UNIX, *files))) as archive:
            archive.extractall(folder)


def read_table(text):
    """Rows of kRmBranches: branch -> (first, last, versions, as_ours)."""
    rows = re.findall(r'\{(\d+), "([\d.]+)", "([\d.]+)", (\d+), (true|false)\}', text)
    return {int(row[0]): (row[1], row[2], int(row[3]), row[4] == "true") for row in rows}


def declared_by_us(compiler):
    """Types with their fields, and numbers, that rm_abi.h declares under the vendor's names."""
    include = '#include "driver/rm_abi.h"'
    layout = parse_layout(compiler.preprocess(include), re.compile(r"NV[A-Z0-9_]"))
    macros = re.findall(r"^#define (NV[A-Z0-9_]\w*|[A-Z]+_CHANNEL_\w+) (.+)$", compiler.preprocess(include, "-dM"), re.M)
    numbers = sorted(name for name, value in macros if "'" in value or re.search(r"\d", value))
    return list(layout.types.items()), numbers


def vendors_name(name):
    return name.removesuffix("_HEAD")


def check_layouts(compiler, folder, branch, types, numbers, report):
    """True when all that we declare is there and the same. `report` gets each difference."""
    vendors = Compiler(compiler.command[0], [folder / SDK, folder / UNIX])
    words = set(re.findall(r"\w+", vendors.preprocess(PROLOGUE)))
    words |= set(re.findall(r"^#define (\w+)", vendors.preprocess(PROLOGUE, "-dM"), re.M))
    wanted = [(name, fields) for name, fields in types if branch >= SINCE.get(name, 0)]
    plain = [name for name in numbers if branch >= SINCE.get(name, 0)]
    absent = [name for name, _ in wanted if vendors_name(name) not in words]
    absent += [name for name in plain if name not in words]
    for name in absent:
        report(f"{name} is not there")
    wanted = [(name, fields) for name, fields in wanted if name not in absent]
    plain = [name for name in plain if name not in absent]

    def lines(with_compiler, prologue, include, rename):
        source = probe_source(include, prologue, [(rename(name), fields) for name, fields in wanted], plain)
        for name, _ in wanted:  # the head of a structure has no size
            if name.endswith("_HEAD"):
                source = re.sub(rf'.*"sizeof {rename(name)} .*\n', "", source)
        return with_compiler.run_program(source).splitlines()

    try:
        theirs = lines(vendors, PROLOGUE, "nvtypes.h", vendors_name)
    except RuntimeError as problem:
        report("does not compile: " + "".join(re.findall(r"error: (.*)", str(problem))[:1]))
        return False
    ours = [line.replace("_HEAD.", ".") for line in
            lines(compiler, "", "driver/rm_abi.h", lambda name: name)]
    different = [(left, right) for left, right in zip(ours, theirs) if left != right]
    for left, right in different:
        report(f"{right}; ours: {left}")
    return not absent and not different


def check_rights(folder, report):
    flags = folder / CONTROL_FLAGS
    value = re.search(r"RMCTRL_FLAGS_NON_PRIVILEGED\s+(0x[0-9a-fA-F]+)", flags.read_text()) if flags.exists() else None
    if value is None:
        report("RMCTRL_FLAGS_NON_PRIVILEGED is not there")
        return
    text = "".join((folder / name).read_text() for name in GENERATED if (folder / name).exists())
    for name, number in CONTROLS.items():
        entry = re.search(rf"flags=\*/\s*(0x[0-9a-f]+)u,\s*/\*accessRight=\*/\s*(0x[0-9a-f]+)u,"
                          rf"\s*/\*methodId=\*/\s*{number}u", text)
        if entry is None:
            report(f"{name} ({number}) is not exported")
        elif not int(entry[1], 16) & int(value[1], 16) or int(entry[2], 16) != 0:
            report(f"{name} ({number}) is not for everybody: flags {entry[1]}, right {entry[2]}")


def check(cc, clone, driver_folder, include_folders):
    """Differences, each one line, and how many tags were read."""
    failures = []
    table = read_table((driver_folder / "rm_branches.h").read_text())
    compiler = Compiler(cc, include_folders)
    types, numbers = declared_by_us(compiler)
    tags = {}
    for tag in clone.tags():
        tags.setdefault(version_key(tag)[0], []).append(tag)
    for branch in sorted(tags.keys() - table.keys()):
        failures.append(f"branch {branch} ({tags[branch][-1]}) is not in rm_branches.h")
    for branch, (first, last, versions, as_ours) in sorted(table.items()):
        found = tags.get(branch, [])
        if not found or [found[0], found[-1], len(found)] != [first, last, versions]:
            failures.append(f"rm_branches.h says {branch}: {versions} tags from {first} to {last}; the clone "
                            f"has {len(found)}" + (f" from {found[0]} to {found[-1]}" if found else ""))
        same = 0
        for tag in found:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                clone.unpack(tag, folder)
                report = (lambda text, tag=tag: failures.append(f"{tag}: {text}")) if as_ours else lambda text: None
                same += check_layouts(compiler, folder, branch, types, numbers, report)
                check_rights(folder, report)
        if not as_ours and found and same == len(found):
            failures.append(f"rm_branches.h says that {branch} has other layouts; it has the same")
    return failures, sum(len(names) for names in tags.values()), len(types), len(numbers)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--source", default=os.environ.get("ALLOT_RM_SOURCE"))
    options = parser.parse_args()
    if not options.source:
        print("no clone of open-gpu-kernel-modules in ALLOT_RM_SOURCE: nothing to compare with")
        return SKIPPED
    failures, tags, types, numbers = check(options.cc, Clone(options.source), ROOT / "src/driver", [ROOT / "src"])
    print("".join(f"{line}\n" for line in failures), end="")
    print(f"{tags} versions read: {types} structures and {numbers} numbers each, {len(failures)} differences")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
