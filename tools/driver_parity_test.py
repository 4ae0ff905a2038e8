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
FAKE_TYPEDEFS = """typedef CUresult (CUDAAPI *PFN_cuInit_v2000)(unsigned int Flags);
typedef CUresult (CUDAAPI *PFN_cuLaunchKernelEx_v11060)(const CUlaunchConfig *config);
typedef CUresult (CUDAAPI *PFN_cuLaunchKernelEx_v11060_ptsz)(const CUlaunchConfig *config);
"""
FAKE_NVML = """#include "driver/nvml_abi.h"
#define NVML_API_VERSION 13
nvmlReturn_t nvmlInit_v2(void);
"""


# Each difference: which file is edited and how, and the line that must report it. They are independent,
# so one run of the compiler serves all.
DIFFERENCES = (
    ("include/cuda.h", r"\Z", "CUresult cuMemAllocLater(CUdeviceptr *p);\n",
     "cuMemAllocLater(CUdeviceptr *p) is declared by cuda.h"),
    ("include/cuda.h", r"\Z", "CUresult cuMemSetAccess(int a, CUstream s);\n",
     "cuMemSetAccess looks like a submission and is classed plain"),
    ("include/cudaTypedefs.h", r"2000", "2010", "cuInit since 2010 variant none is in cudaTypedefs.h"),
    ("src/driver/cuda_entries.txt", r"^(cuLaunchKernelEx +cuLaunchKernelEx +)11060", r"\g<1>11070",
     "cuLaunchKernelEx: since 11070 variant none is not in cudaTypedefs.h"),
    ("src/driver/cuda_entries.txt", r"^(cuMemAlloc_v2 .*alloc +)ll", r"\1li",
     "cuMemAlloc_v2: its parameters have the shape ll, the table says li"),
    ("src/driver/cuda_entries.txt", r"^(cuMemAllocPitch_v2 .*)alloc", r"\1plain",
     "cuMemAllocPitch_v2 looks like an allocation and is classed plain"),
    ("src/driver/cuda_entries.txt", r"^(cuMemFree_v2 .*)free", r"\1plain",
     "cuMemFree_v2 looks like a release and is classed plain"),
    ("src/driver/nvml_entries.txt", r"^(nvmlDeviceGetMemoryInfo +0 )memory_info", r"\1plain",
     "nvmlDeviceGetMemoryInfo shows memory, processes or GPUs and is classed plain"),
    ("include/nvml.h", r"\Z", "nvmlReturn_t nvmlNew(void);\n", "nvmlNew is declared by nvml.h"),
    ("src/driver/cuda_results.h", r"CUDA_ERROR_NOT_FOUND = 500", "CUDA_ERROR_NOT_FOUND = 501",
     "cuda.h: CUDA_ERROR_NOT_FOUND 500; ours: CUDA_ERROR_NOT_FOUND 501"),
    ("src/driver/cuda_execution.h", r"(  unsigned gridDimX(?:.*\n)+?)(  CUstream hStream;\n)", r"\2\1",
     "cuda.h: CUlaunchConfig.hStream 32; ours: CUlaunchConfig.hStream 0"),
    ("src/driver/cuda_types.h", r"CUstream\)0x2", "CUstream)0x3",
     "cuda.h: CU_STREAM_PER_THREAD 2; ours: CU_STREAM_PER_THREAD 3"),
    ("src/driver/nvml_abi.h", r"NVML_ERROR_MEMORY = 20", "NVML_ERROR_MEMORY = 21",
     "nvml.h: NVML_ERROR_MEMORY 20; ours: NVML_ERROR_MEMORY 21"),
)


def failures(cc, edits):
    """What driver_parity reports about a made-up toolkit and a copy of ours after the edits."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("include", "src/driver"):
            (root / name).mkdir(parents=True)
        for path in (ROOT / "src/driver").iterdir():
            if path.suffix in (".h", ".txt"):
                (root / "src/driver" / path.name).write_text(path.read_text())
        for name, text in (("cuda.h", FAKE_CUDA), ("cudaTypedefs.h", FAKE_TYPEDEFS), ("nvml.h", FAKE_NVML)):
            (root / "include" / name).write_text(text)
        (root / "include/driver").symlink_to(ROOT / "src/driver")
        for name, pattern, replacement, _ in edits:
            before = (root / name).read_text()
            after = re.sub(pattern, replacement, before, count=1, flags=re.M)
            assert before != after, f"the edit of {name} at {pattern} changed nothing"
            (root / name).write_text(after)
        with contextlib.redirect_stdout(io.StringIO()):
            return driver_parity.check(cc, root / "include", root / "src/driver", [root / "src"]).failures


def self_test(cc):
    # As the made-up headers include ours, nothing can differ yet.
    found = failures(cc, ())
    assert found == [], f"expected no difference, found {found}"
    found = failures(cc, DIFFERENCES)
    for _, _, _, expected in DIFFERENCES:
        assert any(line.startswith(expected) for line in found), f"expected '{expected}' among {found}"
    print(f"{len(DIFFERENCES)} differences made, each reported")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", default="cc")
    self_test(parser.parse_args().cc)
