"""Asks for more than the slice, first at once, then bit by bit, and continues after each refusal."""
import json

import torch

GIB = 1 << 30
report = {}
try:
    torch.empty(20 * GIB, dtype=torch.uint8, device="cuda")
    report["error"] = None
except Exception as error:
    report["error"] = f"{type(error).__module__}.{type(error).__name__}"
    report["message"] = str(error)
held = []
try:
    while True:
        held.append(torch.empty(GIB // 4, dtype=torch.uint8, device="cuda"))
except torch.OutOfMemoryError:
    report["count"] = len(held)
del held
torch.cuda.empty_cache()
left = torch.randn(2048, 2048, device="cuda", dtype=torch.float64)
right = left @ torch.eye(2048, device="cuda", dtype=torch.float64)
report["after"] = bool(torch.equal(left, right))
print(json.dumps(report))
