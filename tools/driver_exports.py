#!/usr/bin/env python3
"""Checks that each function of ours with a driver entry's name has that entry's shape.

The software GPU exports functions named like the driver's. One with a parameter too few, or with 32
bits where the driver has 64, compiles, links and corrupts its caller. This program reads the functions
that the given folders define in the first column, works out how their parameters travel
(tools/driver_shapes.py, with our own ABI headers) and compares that with the tables. Needs a C compiler,
no toolkit. The shim's hooks are checked by the compiler itself, src/driver/signature.h.
"""
import argparse
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import driver_shapes  # noqa: E402
import gen_driver  # noqa: E402
from driver_layout import Compiler  # noqa: E402  (all three stand beside this file)

NAMES = {"cuda": r"cu[A-Z]\w*", "nvml": r"nvml[A-Z]\w*"}


def definitions(text, api):
    """Functions with a body that begin in the first column: (name, parameter text, line).

    Macros of the same file that stand for parameters are replaced by what they stand for.
    """
    macros = {name: " ".join(body.replace("\\\n", " ").split())
              for name, body in re.findall(r"^#define ([A-Z_]+)[ \t]+((?:[^\n]*\\\n)*[^\n]*)", text, re.M)}
    text = re.sub(r"//[^\n]*|/\*.*?\*/", lambda match: re.sub(r"[^\n]", " ", match.group()), text,
                  flags=re.S)
    for match in re.finditer(rf"^\w[^\n;{{}}()]*?\b({NAMES[api]})\s*\(", text, re.M):
        end, depth = match.end(), 1
        while end < len(text) and depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        if re.match(r"\s*\{", text[end:]):
            line = text.count("\n", 0, match.start()) + 1
            parameters = " ".join(text[match.end():end - 1].split())
            yield match.group(1), re.sub(r"\w+", lambda m: macros.get(m.group(), m.group()), parameters), line


def check(cc, root, folders):
    """Lines of complaint, and how many definitions were compared."""
    complaints, compared = [], 0
    for api in ("cuda", "nvml"):
        entries = {entry.symbol: entry
                   for entry in gen_driver.read_table(api, root / f"src/driver/{api}_entries.txt")}
        found = {}
        for folder in folders:
            for path in sorted((root / folder).rglob("*.cc")):
                for name, parameters, line in definitions(path.read_text(errors="replace"), api):
                    found[name] = (parameters, f"{path.relative_to(root)}:{line}")
        compiler = Compiler(cc, [root / "src"])
        header = f'#include "driver/{api}_abi.h"'
        shapes = driver_shapes.shapes(compiler, header, {name: text for name, (text, _) in found.items()})
        for name, (parameters, place) in sorted(found.items()):
            compared += 1
            if name not in entries:
                complaints.append(f"{place}: {name} is no entry of {api}_entries.txt")
            elif entries[name].shape not in ("?", shapes[name]):
                complaints.append(f"{place}: {name}({parameters}) has the shape {shapes[name]}, the driver's "
                                  f"has {entries[name].shape}")
    return complaints, compared


def self_test(cc):
    """Wrong definitions are found, right ones are not."""
    source = """// CUresult cuInit(int a, int b) {}
CUresult cuInit(unsigned flags) { return 0; }
CUresult cuMemAlloc_v2(CUdeviceptr* out, unsigned bytes) { return 0; }
CUresult cuLaunchHostFunc(CUstream stream,
                          void (*function)(void*), void* data) { return 0; }
CUresult cuCtxSynchronize_v2() { return 0; }
CUresult cuNoSuchEntry(int a) { return 0; }
CUresult cuDeclaredOnly(int a);
nvmlReturn_t nvmlInit_v2(void) { return 0; }
"""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "sim").mkdir()
        (root / "sim/x.cc").write_text(source)
        (root / "src").mkdir()
        (root / "src/driver").symlink_to(ROOT / "src/driver")
        complaints, compared = check(cc, root, ["sim"])
    expected = ["sim/x.cc:6: cuCtxSynchronize_v2()", "sim/x.cc:3: cuMemAlloc_v2(", "sim/x.cc:7: cuNoSuchEntry"]
    assert compared == 6, compared
    assert len(complaints) == 3 and all(any(line.startswith(text) for line in complaints)
                                        for text in expected), complaints


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", default="cc", help="C compiler for the probe program")
    parser.add_argument("folders", nargs="+", help="folders to read, relative to the root")
    options = parser.parse_args(arguments)
    self_test(options.cc)
    complaints, compared = check(options.cc, ROOT, options.folders)
    for complaint in complaints:
        print("FAIL", complaint)
    print(f"{compared} definitions compared, {len(complaints)} wrong")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
