"""torch_fill.py fill|graph|late: takes a slice's memory with PyTorch until it says OutOfMemoryError.

fill: tensors of 64 MiB, then of 2 MiB, each filled and checked at the end. graph: CUDA graphs are
captured whose outputs live in their memory pool, until a capture runs out; those captured before must
still replay to the right values. late: the memory is taken without running a kernel; then operations
run for the first time, each of which may work or run out of memory.
"""
import json
import sys
import time

import torch

MIB = 1 << 20


def fill():
    held, message = [], ""
    for size in (64 * MIB, 2 * MIB):
        while True:
            try:
                tensor = torch.empty(size // 4, dtype=torch.int32, device="cuda")
            except torch.OutOfMemoryError as error:
                message = str(error)
                break
            tensor.fill_(len(held))
            held.append(tensor)
    wrong = sum(int(tensor[0]) != i or int(tensor[-1]) != i for i, tensor in enumerate(held))
    return held, message, wrong


def graph():
    source = torch.ones(64 * MIB, dtype=torch.float32, device="cuda")  # 256 MiB
    warm = torch.cuda.Stream()
    with torch.cuda.stream(warm):
        (source * 2).sum()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    held, message = [], ""
    while not message:
        captured = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(captured):
                output = source * float(len(held) + 2)
            held.append((captured, output))
        except torch.OutOfMemoryError as error:
            message = str(error)
        except RuntimeError as error:  # the capture's end may hide the cause behind its own error
            if "memory" not in f"{error}{error.__context__}":
                raise
            message = f"{error} / {error.__context__}"
    wrong = 0
    for i, (captured, output) in enumerate(held):
        captured.replay()
        torch.cuda.synchronize()
        wrong += float(output[0]) != i + 2 or float(output[-1]) != i + 2
    return held, message, wrong


def late():
    held, message, wrong = [], "", 0
    for size in (64 * MIB, 2 * MIB):
        while True:
            try:
                held.append(torch.empty(size // 4, dtype=torch.float32, device="cuda"))
            except torch.OutOfMemoryError as error:
                message = str(error)
                break
    square = held[0][:1 << 20].view(1024, 1024)
    target = held[1][:1 << 20].view(1024, 1024)
    operations = {
        "fill": lambda: square.fill_(1.0), "matmul": lambda: torch.matmul(square, square, out=target),
        "sort": lambda: torch.sort(square), "fft": lambda: torch.fft.fft2(square),
        "softmax": lambda: torch.softmax(square, 1), "half": lambda: square.half() @ square.half(),
        "solve": lambda: torch.linalg.cholesky(square + 2000 * torch.eye(1024, device="cuda"))}
    for name, operation in operations.items():
        try:
            operation()
            torch.cuda.synchronize()
            LATE[name] = "done"
        except RuntimeError as error:
            LATE[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    return held, message, wrong


LATE = {}
held, message, wrong = {"fill": fill, "graph": graph, "late": late}[sys.argv[1]]()
torch.cuda.synchronize()
print(json.dumps({"granted_bytes": torch.cuda.memory_allocated(),
                  "reserved_bytes": torch.cuda.memory_reserved(), "count": len(held),
                  "refused_with": "OutOfMemoryError" if message else None,
                  "message": message, "wrong": wrong, "late": LATE,
                  "mem_get_info": list(torch.cuda.mem_get_info())}), flush=True)
time.sleep(0.3)
