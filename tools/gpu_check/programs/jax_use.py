"""JAX starts, computes and differentiates in a slice; the values are compared with NumPy's."""
import json

import jax
import jax.numpy as jnp
import numpy as np

device = jax.devices()[0]
generator = np.random.default_rng(7)
left, right = generator.standard_normal((2, 512, 512)).astype(np.float32)
with jax.default_matmul_precision("highest"):
    product = np.asarray(jax.jit(jnp.matmul)(left, right))
    gradient = np.asarray(jax.jit(jax.grad(lambda x: jnp.sum(jnp.tanh(x) ** 2)))(left))
tanh = np.tanh(left)
right_values = bool(np.allclose(product, left @ right, atol=1e-2, rtol=1e-3) and
                    np.allclose(gradient, 2 * tanh * (1 - tanh**2), atol=1e-3))
statistics = device.memory_stats() or {}
print(json.dumps({"right": right_values, "platform": device.platform,
                  "bytes_limit": statistics.get("bytes_limit"),
                  "pool_bytes": statistics.get("pool_bytes"), "version": jax.__version__}))
