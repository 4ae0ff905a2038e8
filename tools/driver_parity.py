#!/usr/bin/env python3
"""Compares our tables and ABI headers with the vendor's headers, where a toolkit is on the machine.

src/driver has what the project knows of the driver: tables of entries and our own declarations.
Both are facts copied by hand and go wrong silently, so this program holds them against cuda.h,
cudaTypedefs.h and nvml.h:

  entries   every function that the headers declare is in the table, under the right name, first
            version and stream variant
  classes   no entry that looks like an allocation, a release or a submission is classed plain, unless
            it is in PLAIN_ON_PURPOSE with a reason
  shapes    every function's parameters travel as the table says (tools/driver_shapes.py)
  layouts   two probe programs, one with the vendor's header and one with ours, print every size,
            offset, enumerator and constant that ours declares; they must print the same

Headers are looked for in $ALLOT_CUDA_HEADERS, $CUDA_HOME/include and /usr/local/cuda/include. Without
any the exit status is 77, which ctest shows as skipped. driver_parity_test.py runs it against small
made-up toolkits and shows that each check can fail. Standard library only.
"""
import argparse
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import driver_shapes  # noqa: E402
import gen_driver  # noqa: E402  (all three stand beside this file)
from driver_layout import Compiler, check_layouts  # noqa: E402

SKIPPED = 77
INTERNAL = "#define __CUDA_API_VERSION_INTERNAL 1"  # also declares the entries that cuda.h renames away

# Entries that look like an allocation, a release or a submission and are plain. Names without
# suffix.
PLAIN_ON_PURPOSE = {
    # Only addresses or properties, no memory behind them.
    "cuMemAddressReserve": "reserves addresses, not memory",
    "cuMemAddressFree": "gives addresses back, not memory",
    "cuMemGetAllocationGranularity": "query",
    "cuMemGetAllocationPropertiesFromHandle": "query",
    "cuGraphMemAllocNodeGetParams": "query of a node",
    "cuGraphMemFreeNodeGetParams": "query of a node",
    "cuGraphBatchMemOpNodeGetParams": "query of a node",
    "cuGraphMemcpyNodeGetParams": "query of a node",
    "cuGraphMemsetNodeGetParams": "query of a node",
    # Give the address of something that exists.
    "cuMemGetAddressRange": "query of an allocation",
    "cuMemHostGetDevicePointer": "address of host memory",
    "cuModuleGetGlobal": "address of a module's variable",
    "cuLibraryGetGlobal": "address of a library's variable",
    "cuLibraryGetManaged": "address of a library's managed variable",
    "cuGraphicsResourceGetMappedPointer": "address of a mapped resource",
    "cuGraphicsResourceGetMappedMipmappedArray": "array of a mapped resource",
    "cuGraphicsSubResourceGetMappedArray": "array of a mapped resource",
    "cuTexRefGetAddress": "query of a texture reference",
    "cuTexRefGetArray": "query of a texture reference",
    "cuTexRefGetMipmappedArray": "query of a texture reference",
    "cuSurfRefGetArray": "query of a surface reference",
    "cuArrayGetPlane": "one plane of an array that exists",
    "cuMipmappedArrayGetLevel": "one level of a mipmapped array that exists",
    # Take a stream and put nothing on it.
    "cuStreamGetPriority": "query",
    "cuStreamGetFlags": "query",
    "cuStreamGetId": "query",
    "cuStreamGetDevice": "query",
    "cuStreamGetCtx": "query",
    "cuStreamGetGreenCtx": "query",
    "cuStreamGetAttribute": "query",
    "cuStreamGetCaptureInfo": "query",
    "cuStreamGetDevResource": "query",
    "cuStreamIsCapturing": "query",
    "cuStreamQuery": "query",
    "cuStreamCopyAttributes": "properties of a stream",
    "cuStreamSetAttribute": "properties of a stream",
    "cuEGLStreamConsumerConnect": "connection, no work",
    # Names that only sound like work.
    "cuFuncGetAttribute": "query",
    "cuUserObjectRelease": "a user's own object",
    "cuGraphReleaseUserObject": "a user's own object",
    "cuLogicalEndpointIdRelease": "a number, not memory",
}

# By name alone.
LOOKS_LIKE = (
    ("an allocation", re.compile(r"Alloc|(Array|Mem)\w*Create$|MemCreate|ImportFromShareable")),
    ("a release", re.compile(r"Free|Destroy|Release|Unload|Unmap|Unbind|TrimTo|MemTrim")),
    ("a submission", re.compile(r"Launch|Memcpy|Memset|Prefetch|Discard|BatchMemOp|(Wait|Write)Value"
                                r"|Decompress|SemaphoresAsync|EventRecord(WithFlags)?$|Capture(To\w+)?$")),
    ("a container of memory", re.compile(r"(Ctx|Graph|Pool|Context)Create|ModuleLoad|LibraryLoad"
                                         r"|GraphInstantiate|GraphAdd\w*Node|Upload$")),
)
# By signature: something new comes out, or a stream goes in.
SIGNATURE_LOOKS_LIKE = (
    ("an allocation", re.compile(r"(?<!const )(CUdeviceptr|CUdeviceptr_v[12]|CUarray|CUmipmappedArray|"
                                 r"CUmemGenericAllocationHandle)\s*\*")),
    ("a submission", re.compile(r"\bCUstream\b(?!\s*\*)")),
)
NVML_LOOKS_LIKE = re.compile(r"MemoryInfo|RunningProcess|ProcessUtiliz|ProcessesUtiliz|UtilizationRates|"
                             r"DeviceGetCount|DeviceGetHandleBy|^nvmlInit|^nvmlShutdown|FieldValues")
NVML_PLAIN_ON_PURPOSE = {
    "nvmlDeviceClearFieldValues": "clears counters",
    "nvmlVgpuInstanceGetFrameRateLimit": "vGPU hosts only",
    "nvmlDeviceGetVgpuProcessUtilization": "vGPU hosts only",
    "nvmlDeviceGetVgpuProcessesUtilizationInfo": "vGPU hosts only",
    "nvmlGetVgpuDriverCapabilities": "vGPU hosts only",
}


class Report:
    """Failures so far, each one line."""

    def __init__(self):
        self.failures = []

    def fail(self, text):
        self.failures.append(text)


def functions(preprocessed, result_type, prefix):
    """Functions declared in preprocessed C: symbol -> parameter text."""
    found = {}
    pattern = rf"\b{result_type}\s+(?:__attribute__\(\(\w+\)\)\s+)?({prefix}\w+)\s*\(([^;{{]*)\)\s*;"
    for match in re.finditer(pattern, preprocessed):
        found[match.group(1)] = " ".join(match.group(2).split())
    return found


def typed_entries(text):
    """Entries of cudaTypedefs.h: (name, since, variant)."""
    pattern = r"PFN_(cu\w+?)_v(\d+)(?:_(ptds|ptsz))?\)\s*\("
    return {(name, int(since), variant or "none") for name, since, variant in re.findall(pattern, text)}


def bare_name(symbol):
    return re.sub(r"(_v\d+)?(_pt[ds][sz])?$", "", symbol)


def check_cuda_entries(report, entries, declared, typed, version):
    by_symbol = {entry.symbol: entry for entry in entries}
    for symbol in sorted(declared):
        if symbol not in by_symbol and not symbol.startswith("cuGetProcAddress_v2_pt"):
            report.fail(f"{symbol}({declared[symbol]}) is declared by cuda.h and not in cuda_entries.txt")
    listed = {(entry.name, entry.since, entry.variant) for entry in entries}
    for name, since, variant in sorted(typed - listed):
        report.fail(f"{name} since {since} variant {variant} is in cudaTypedefs.h, not in cuda_entries.txt")
    known_names = {name for name, _, _ in typed}
    for entry in entries:
        key = (entry.name, entry.since, entry.variant)
        if entry.name in known_names and entry.since <= version and key not in typed:
            report.fail(f"{entry.symbol}: since {entry.since} variant {entry.variant} is not in "
                        "cudaTypedefs.h")


def check_classes(report, entries, declared):
    needed = set()
    for entry in entries:
        name = bare_name(entry.symbol)
        reasons = [what for what, pattern in LOOKS_LIKE if pattern.search(name)]
        if entry.symbol in declared:
            reasons += [what for what, pattern in SIGNATURE_LOOKS_LIKE
                        if pattern.search(declared[entry.symbol])]
        if not reasons or entry.cls != "plain":
            continue
        needed.add(name)
        if name not in PLAIN_ON_PURPOSE:
            report.fail(f"{entry.symbol} looks like {reasons[0]} and is classed plain; class it in "
                        "cuda_entries.txt, or say why not in PLAIN_ON_PURPOSE of driver_parity.py")
    classes = {bare_name(entry.symbol): entry.cls for entry in entries}
    for name in sorted(PLAIN_ON_PURPOSE):
        if classes.get(name) != "plain":
            report.fail(f"{name} is in PLAIN_ON_PURPOSE but is {classes.get(name, 'not in the table')}")


def check_shapes(report, entries, shapes):
    """Legacy and per-thread forms have one shape, so an undeclared form is held against the other."""
    for entry in entries:
        known = shapes.get(entry.symbol) or shapes.get(re.sub(r"_pt[ds][sz]$", "", entry.symbol))
        if known is not None and entry.shape != known:
            report.fail(f"{entry.symbol}: its parameters have the shape {known}, the table says "
                        f"{entry.shape}")


def check_nvml(report, entries, declared):
    by_symbol = {entry.symbol: entry for entry in entries}
    for symbol in sorted(declared):
        if symbol not in by_symbol:
            report.fail(f"{symbol} is declared by nvml.h and not in nvml_entries.txt")
    for entry in entries:
        if (entry.cls == "plain" and NVML_LOOKS_LIKE.search(entry.symbol)
                and entry.symbol not in NVML_PLAIN_ON_PURPOSE):
            report.fail(f"{entry.symbol} shows memory, processes or GPUs and is classed plain")


def find_headers():
    folders = [os.environ.get("ALLOT_CUDA_HEADERS")]
    if os.environ.get("CUDA_HOME"):
        folders.append(os.path.join(os.environ["CUDA_HOME"], "include"))
    folders.append("/usr/local/cuda/include")
    for folder in folders:
        if folder and (Path(folder) / "cuda.h").is_file():
            return Path(folder)
    return None


def check_cuda_headers(report, cc, headers, tables, include_roots):
    vendors, ours = Compiler(cc, [headers]), Compiler(cc, include_roots)
    text = (headers / "cuda.h").read_text(errors="replace")
    version = int(re.search(r"#define\s+CUDA_VERSION\s+(\d+)", text).group(1))
    declared = {}
    for prologue in ("", "#define CUDA_API_PER_THREAD_DEFAULT_STREAM 1",
                     INTERNAL):
        for header in ("cuda.h", "cudaProfiler.h"):
            if (headers / header).is_file():
                preprocessed = vendors.preprocess(f'{prologue}\n#include "{header}"')
                declared.update(functions(preprocessed, "CUresult", "cu"))
    typed = set()
    for header in ("cudaTypedefs.h", "cudaProfilerTypedefs.h"):
        if (headers / header).is_file():
            typed |= typed_entries((headers / header).read_text(errors="replace"))
    entries = gen_driver.read_table("cuda", tables / "cuda_entries.txt")
    check_cuda_entries(report, entries, declared, typed, version)
    check_classes(report, entries, declared)
    check_shapes(report, entries, driver_shapes.shapes(
        vendors, f'{INTERNAL}\n#include "cuda.h"\n#include "cudaProfiler.h"'
        if (headers / "cudaProfiler.h").is_file() else f'{INTERNAL}\n#include "cuda.h"', declared))
    abi = int(re.search(r"ALLOT_CUDA_ABI_VERSION (\d+)",
                        (include_roots[0] / "driver/cuda_abi.h").read_text()).group(1))
    facts = check_layouts(report, ours, vendors, "driver/cuda_abi.h", "cuda.h",
                          INTERNAL, version == abi, version > abi)
    print(f"cuda.h {version}: {len(declared)} functions, {len(typed)} typed entries, {facts} facts of layout")


def check_nvml_header(report, cc, headers, tables, include_roots):
    vendors, ours = Compiler(cc, [headers]), Compiler(cc, include_roots)
    declared = functions(vendors.preprocess('#include "nvml.h"'), "nvmlReturn_t", "nvml")
    entries = gen_driver.read_table("nvml", tables / "nvml_entries.txt")
    check_nvml(report, entries, declared)
    check_shapes(report, entries, driver_shapes.shapes(vendors, '#include "nvml.h"', declared))
    defines = vendors.preprocess('#include "nvml.h"', "-dM")
    version = int(re.search(r"#define NVML_API_VERSION\s+(\d+)", defines).group(1))
    abi = int(re.search(r"ALLOT_NVML_ABI_VERSION (\d+)",
                        (include_roots[0] / "driver/nvml_abi.h").read_text()).group(1))
    facts = check_layouts(report, ours, vendors, "driver/nvml_abi.h", "nvml.h",
                          "#define NVML_NO_UNVERSIONED_FUNC_DEFS 1", version == abi, version > abi)
    print(f"nvml.h {version}: {len(declared)} functions, {facts} facts of layout")


def check(cc, headers, tables, include_roots):
    """All checks that the headers in a folder allow; without headers those by name alone."""
    report = Report()
    if headers is None:
        check_classes(report, gen_driver.read_table("cuda", tables / "cuda_entries.txt"), {})
        check_nvml(report, gen_driver.read_table("nvml", tables / "nvml_entries.txt"), {})
        return report
    check_cuda_headers(report, cc, headers, tables, include_roots)
    if (headers / "nvml.h").is_file():
        check_nvml_header(report, cc, headers, tables, include_roots)
    else:
        check_nvml(report, gen_driver.read_table("nvml", tables / "nvml_entries.txt"), {})
        print("no nvml.h beside cuda.h: its layouts are not compared")
    return report


def check_symbols(report, tables, api, path):
    """A list of exported symbols, one a line, as `nm -D` of a driver gives it."""
    prefix = {"cuda": r"cu[A-Z]\w*", "nvml": r"nvml\w+"}[api]
    exported = set(re.findall(rf"^\s*(?:[0-9a-f]+ [A-Za-z] )?({prefix})\s*$", Path(path).read_text(), re.M))
    listed = {entry.symbol for entry in gen_driver.read_table(api, tables / f"{api}_entries.txt")}
    for symbol in sorted(exported - listed):
        report.fail(f"{symbol} is exported by the driver and not in {api}_entries.txt")
    print(f"{len(exported)} exported symbols compared")


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", default="cc", help="C compiler for the probe programs")
    parser.add_argument("--cuda-symbols", help="file with the exported symbols of a libcuda.so.1")
    parser.add_argument("--nvml-symbols", help="file with the exported symbols of a libnvidia-ml.so.1")
    options = parser.parse_args(arguments)
    headers = find_headers()
    tables = ROOT / "src/driver"
    report = check(options.cc, headers, tables, [ROOT / "src", ROOT])
    for api, path in (("cuda", options.cuda_symbols), ("nvml", options.nvml_symbols)):
        if path:
            check_symbols(report, tables, api, path)
    for failure in report.failures:
        print("FAIL", failure)
    if report.failures:
        print(f"{len(report.failures)} differences")
        return 1
    if headers is None:
        print("SKIP: no cuda.h in $ALLOT_CUDA_HEADERS, $CUDA_HOME/include or /usr/local/cuda/include; "
              "only the classes were checked, by name")
        return SKIPPED
    print("equal")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
