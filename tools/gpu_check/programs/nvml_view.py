"""Prints what NVML shows here: memory by both calls, the compute processes, the number of GPUs."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from nvml import Nvml, NvmlError  # noqa: E402

gpu = Nvml()
report = {"count": gpu.count(), "memory": gpu.memory()}
try:
    report["memory_v2"] = gpu.memory2()
except (NvmlError, AttributeError) as error:
    report["memory_v2"] = str(error)
report["processes"] = [{"pid": pid, "bytes": size} for pid, size in gpu.processes()]
print(json.dumps(report))
