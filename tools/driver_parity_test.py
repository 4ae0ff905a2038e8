#!/usr/bin/env python3
"""Shows that every check of driver_parity.py fails when it should, on small made-up toolkits.

A made-up cuda.h includes our own declarations, so it agrees with us until one of the two is changed;
then the one difference must be reported. Needs a C compiler and no toolkit.
"""
import argparse
import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import driver_parity  # noqa: E402  (stands beside this file)

FAKE_CUDA = """#include "driver/cuda_abi.h"
#define CUDA_VERSION 13000
CUresult cuInit(unsigned int Flags);
CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize);
CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **p, void **extra);
"""
FAKE_TYPEDEFS = "typedef CUresult (CUDAAPI *PFN_cuInit_v2000)(unsigned int Flags);\n"
FAKE_NVML = """#include "driver/nvml_abi.h"
#define NVML_API_VERSION 13
nvmlReturn_t nvmlInit_v2(void);
"""


def self_test(cc):
    """Each check passes on a made-up toolkit that agrees with us and fails on one that does not."""
    source = ROOT / "src"
    def failures(cuda=FAKE_CUDA, typedefs=FAKE_TYPEDEFS, nvml=FAKE_NVML, table_edit=None, ours_edit=None):
        with tempfile.TemporaryDirectory() as folder:
            fake, tables = Path(folder) / "include", Path(folder) / "src/driver"
            fake.mkdir()
            tables.mkdir(parents=True)
            for path in (source / "driver").iterdir():
                if path.suffix in (".h", ".txt"):
                    (tables / path.name).write_text(path.read_text())
            for name, text in (("cuda.h", cuda), ("cudaTypedefs.h", typedefs), ("nvml.h", nvml)):
                (fake / name).write_text(text)
            (fake / "driver").symlink_to(source / "driver")
            for edit in (table_edit, ours_edit):
                if edit:
                    name, pattern, replacement = edit
                    before = (tables / name).read_text()
                    after = re.sub(pattern, replacement, before, count=1, flags=re.M)
                    assert before != after, f"the edit of {name} changed nothing"
                    (tables / name).write_text(after)
            with contextlib.redirect_stdout(io.StringIO()):
                return driver_parity.check(cc, fake, tables, [Path(folder) / "src"]).failures

    def must_fail(text, **arguments):
        found = failures(**arguments)
        assert any(text in line for line in found), f"expected '{text}', found {found}"

    # As the fake header includes ours, only what it adds can differ: nothing.
    assert failures() == [], failures()
    must_fail("cuMemAllocLater(CUdeviceptr *p) is declared",
              cuda=FAKE_CUDA + "CUresult cuMemAllocLater(CUdeviceptr *p);\n")
    must_fail("cuInit since 2010", typedefs=FAKE_TYPEDEFS.replace("2000", "2010"))
    must_fail("cuInit: since 2010", table_edit=("cuda_entries.txt", r"^(cuInit +cuInit +)2000", r"\g<1>2010"))
    must_fail("cuMemAlloc_v2 looks like an allocation",
              table_edit=("cuda_entries.txt", r"^(cuMemAlloc_v2 .*)alloc", r"\1plain"))
    must_fail("cuMemSetAccess looks like a submission",
              cuda=FAKE_CUDA + "CUresult cuMemSetAccess(int a, CUstream s);\n")
    must_fail("nvmlDeviceGetMemoryInfo shows memory",
              table_edit=("nvml_entries.txt", r"^(nvmlDeviceGetMemoryInfo +0 )memory_info", r"\1plain"))
    must_fail("nvmlNew is declared", nvml=FAKE_NVML + "nvmlReturn_t nvmlNew(void);\n")
    must_fail("CUDA_ERROR_NOT_FOUND 500; ours: CUDA_ERROR_NOT_FOUND 501",
              ours_edit=("cuda_results.h", r"CUDA_ERROR_NOT_FOUND = 500", "CUDA_ERROR_NOT_FOUND = 501"))
    must_fail("CUlaunchConfig.hStream",
              ours_edit=("cuda_execution.h", r"(  unsigned gridDimX, gridDimY)(.*\n(?:.*\n){0,3}?)"
                         r"(  CUstream hStream;)", r"  CUstream hStream;\n\1\2"))
    must_fail("CU_STREAM_PER_THREAD 2; ours: CU_STREAM_PER_THREAD 3",
              ours_edit=("cuda_types.h", r"CUstream\)0x2", "CUstream)0x3"))
    print("self-test: every check fails when it should")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", default="cc")
    self_test(parser.parse_args().cc)
