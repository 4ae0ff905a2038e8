"""program_time.py KIND: a program as users run it, that works as told by lines on stdin: "BEGIN SECONDS", BEGIN on
the monotonic clock.

train: a PyTorch training two steps ahead of the GPU. decode: a small decoder in eager PyTorch that reads every
token. hf: a Hugging Face model that generates. compiled: a torch.compile model with CUDA graphs. jax: a jitted
training step of JAX. numba: a kernel of its own and a wait. cupy: products of arrays. matmul: float32 products that
keep the GPU full.
Answers with the steps done a second, how long steps took, and the last steps one by one.
"""
import json
import os
import sys
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def torch_work(kind):
    from torch_time import WAIT_EVERY, Work, wait
    step = Work().step(kind)
    if kind != "matmul32":
        return step
    each = WAIT_EVERY[kind]

    def several():
        for _ in range(each):
            step()
        wait(kind)

    return several


def make_train():
    import torch
    step, marks = torch_work("train"), []

    def ahead():
        step()
        marks.append(torch.cuda.Event())
        marks[-1].record()
        if len(marks) > 2:
            marks.pop(0).synchronize()

    return ahead


def make_hf():
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(3)
    model = GPT2LMHeadModel(GPT2Config(n_layer=12, n_head=12, n_embd=768)).cuda().half().eval()
    prompt = torch.randint(0, 50000, (1, 64), device="cuda")
    marks = []

    class Clock:  # called once a token
        def put(self, _):
            marks.append(time.monotonic())

        def end(self):
            pass

    def generate(until):
        while time.monotonic() < until:
            model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=32, do_sample=False,
                           pad_token_id=0, streamer=Clock())
        ended = list(marks)
        marks.clear()
        return ended

    return generate


def make_compiled():
    import torch
    from torch import nn
    torch.manual_seed(4)
    layers = []
    for _ in range(24):
        layers += [nn.Linear(1024, 1024), nn.LayerNorm(1024), nn.GELU()]
    model = torch.compile(nn.Sequential(*layers).cuda().half(), mode="reduce-overhead")
    batch = torch.randn(64, 1024, device="cuda", dtype=torch.half)

    @torch.no_grad()
    def step():
        float(model(batch).sum())  # waits

    for _ in range(4):
        step()
    return step


def make_jax():
    import jax
    import jax.numpy as jnp
    keys = jax.random.split(jax.random.PRNGKey(5), 9)
    layers = [jax.random.normal(key, (1024, 1024)) / 32 for key in keys[:8]]
    batch = jax.random.normal(keys[8], (2048, 1024))

    def loss(layers, batch):
        x = batch
        for layer in layers:
            x = jnp.tanh(x @ layer)
        return jnp.mean(x * x)

    @jax.jit
    def update(layers, batch):
        value, gradients = jax.value_and_grad(loss)(layers, batch)
        return [layer - 1e-3 * gradient for layer, gradient in zip(layers, gradients)], value

    state = [layers]

    def step():
        state[0], value = update(state[0], batch)
        float(value)  # waits

    return step


def make_numba():
    import numpy
    if not hasattr(numpy, "row_stack"):  # gone from NumPy 2.5, looked for by numba-cuda
        numpy.row_stack = numpy.vstack
    from numba import cuda

    @cuda.jit
    def turn(values, rounds):
        i = cuda.grid(1)
        if i < values.size:
            x = values[i]
            for _ in range(rounds):
                x = x * numpy.float32(0.999) + numpy.float32(0.5)
            values[i] = x

    values = cuda.to_device(numpy.ones(1 << 20, dtype=numpy.float32))

    def step():
        turn[4096, 256](values, 20000)
        cuda.synchronize()
        values[:16].copy_to_host().sum()

    return step


def make_cupy():
    import cupy
    a = cupy.random.rand(2048, 2048, dtype=cupy.float32)

    def step():
        b = cupy.tanh(a @ a / 2048)
        float(b.sum())  # waits

    return step


def steps(step, until):
    """A program of single steps as one that tells when each ended."""
    ends = []
    while not ends or ends[-1] < until:
        step()
        ends.append(time.monotonic())
    return ends


MAKERS = {"train": make_train, "decode": lambda: torch_work("generate"), "hf": make_hf, "compiled": make_compiled,
          "jax": make_jax, "numba": make_numba, "cupy": make_cupy, "matmul": lambda: torch_work("matmul32")}
RUNS_ITSELF = ("hf",)


def answer(kind, ends, start):
    took = [1e3 * (b - a) for a, b in zip([start] + ends, ends)]
    ordered = sorted(took)

    def part(of):
        return round(ordered[int(of * (len(ordered) - 1))], 3)

    return {"kind": kind, "rate": len(ends) / (ends[-1] - start), "steps": len(ends), "p50": part(0.5), "p99": part(0.99),
            "max": part(1.0), "last": [round(each, 2) for each in took[-150:]]}


def main():
    kind = sys.argv[1]
    work = MAKERS[kind]()
    run = work if kind in RUNS_ITSELF else lambda until: steps(work, until)
    run(time.monotonic() + 0.3)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        begin, seconds = (float(word) for word in line.split())
        time.sleep(max(0.0, begin - time.monotonic()))
        start = time.monotonic()
        print(json.dumps(answer(kind, run(start + seconds), start)), flush=True)


main()
