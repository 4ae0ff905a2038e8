"""CuPy starts and computes in a slice, and is refused more than it."""
import json

import cupy
import numpy as np

generator = np.random.default_rng(7)
left, right = generator.standard_normal((2, 512, 512))
product = cupy.asnumpy(cupy.asarray(left) @ cupy.asarray(right))
squares = int((cupy.arange(1000) ** 2).sum())
values = bool(np.allclose(product, left @ right) and squares == sum(i * i for i in range(1000)))
_, total = cupy.cuda.runtime.memGetInfo()
held = []
error = ""
try:
    while len(held) < 100:
        held.append(cupy.zeros(1 << 28, dtype=cupy.uint8))
except Exception as refused:
    error = f"{type(refused).__module__}.{type(refused).__name__}"
held.clear()
cupy.get_default_memory_pool().free_all_blocks()
print(json.dumps({"right": values, "total": total, "error": error, "version": cupy.__version__}))
