"""numba finds the driver by its own search, compiles a kernel and sees the slice."""
import json

import numpy as np
from numba import cuda


@cuda.jit
def double(values):
    i = cuda.grid(1)
    if i < values.size:
        values[i] *= 2


data = np.arange(1000, dtype=np.float64)
on_gpu = cuda.to_device(data)
double[4, 256](on_gpu)
memory = cuda.current_context().get_memory_info()
print(json.dumps({"right": bool(np.array_equal(on_gpu.copy_to_host(), data * 2)),
                  "total": int(memory.total)}))
