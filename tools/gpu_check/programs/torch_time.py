"""torch_time.py: works as told by lines on stdin: "KIND BEGIN SECONDS", BEGIN on the monotonic clock.

matmul: bf16, large enough to fill the GPU and to run into its power limit. matmul32: the same in float32,
which does not. train: a transformer that keeps the GPU busy, always two steps ahead of it. launch: many small
layers, so that the time goes into launches. generate: a small decoder that reads every token. reduce: matmuls on two GPUs and an all-reduce between them.
Answers with the steps done a second, over all and in each full
second, counted at waits for the GPU.
"""
import json
import sys
import time

import torch
from torch import nn

WAIT_EVERY = {"matmul": 8, "matmul32": 4, "launch": 1, "reduce": 4}
STEPS_AHEAD = {"train": 2}  # waits for the step so many before: the GPU never runs dry, whatever the CPUs do
TIMED = ("matmul", "matmul32")  # steps that are one kernel, of which the device tells how long each ran


class Work:
    def __init__(self):
        self.made = {}

    def step(self, kind):
        if kind not in self.made:
            self.made[kind] = getattr(self, "make_" + kind)()
        return self.made[kind]

    def make_matmul(self):
        a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        out = torch.empty_like(a)
        return lambda: torch.matmul(a, a, out=out)

    def make_matmul32(self):
        a = torch.randn(4096, 4096, device="cuda")
        out = torch.empty_like(a)

        def step():
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.matmul(a, a, out=out)
            torch.backends.cuda.matmul.allow_tf32 = True

        return step

    def make_reduce(self):
        gpus = ("cuda:0", "cuda:1")
        factors = [torch.randn(4096, 4096, device=gpu) for gpu in gpus]
        outs = [torch.empty_like(factor) for factor in factors]
        gradients = [torch.ones(8 << 20, device=gpu) for gpu in gpus]

        def step():
            for factor, out in zip(factors, outs):
                torch.matmul(factor, factor, out=out)
            torch.cuda.nccl.all_reduce(gradients, op=2)  # max: the values stay what they are

        return step

    def make_train(self):
        layer = nn.TransformerEncoderLayer(1024, 16, 4096, dropout=0.0, batch_first=True)
        return self.training(nn.TransformerEncoder(layer, 4).cuda(), (32, 256, 1024), fused=True)

    def make_generate(self):
        """A token a step: attention over a context of fixed length, layer by layer, and a wait for the token."""
        torch.manual_seed(2)
        width, heads, context, words = 1024, 16, 512, 8192
        half = {"device": "cuda", "dtype": torch.bfloat16}
        table, out = torch.randn(words, width, **half), torch.randn(width, words, **half)
        layers = [[torch.randn(width, 3 * width, **half) / 32, torch.randn(width, 4 * width, **half) / 32,
                   torch.randn(4 * width, width, **half) / 64] for _ in range(12)]
        past = [torch.randn(2, 1, heads, context, width // heads, **half) for _ in layers]
        token = [0]

        @torch.no_grad()
        def step():
            x = table[token[0]][None]
            for (qkv, up, down), (keys, values) in zip(layers, past):
                q, _, _ = (nn.functional.layer_norm(x, (width,)) @ qkv).view(3, 1, heads, 1, width // heads)
                seen = nn.functional.scaled_dot_product_attention(q, keys, values)
                x = x + seen.reshape(1, width)
                x = x + nn.functional.gelu(nn.functional.layer_norm(x, (width,)) @ up) @ down
            token[0] = int((x @ out).argmax())  # waits

        return step

    def make_launch(self):
        layers = []
        for _ in range(64):
            layers += [nn.Linear(256, 256), nn.LayerNorm(256), nn.ReLU()]
        return self.training(nn.Sequential(*layers).cuda(), (256, 256), fused=False)

    @staticmethod
    def training(model, shape, fused):
        torch.manual_seed(1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)
        batch, target = torch.randn(*shape, device="cuda"), torch.randn(*shape, device="cuda")

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.mse_loss(model(batch), target)
            loss.backward()
            optimizer.step()

        return step


def per_second(ends, begin, seconds, amounts):
    """What was done in each full second; what lies across an end is split."""
    out = [0.0] * int(seconds)
    last = begin
    for at, amount in zip(ends, amounts):
        for i in range(len(out)):
            overlap = min(at, begin + i + 1) - max(last, begin + i)
            if overlap > 0:
                out[i] += amount * overlap / (at - last)
        last = at
    return out


class Timed:
    """Device time of each step between two waits, by events. One that was stopped in the middle (its window had
    ended) shows the pause, too, and counts as long as the others, of which at most half are so."""

    def __init__(self, each):
        self.events = [torch.cuda.Event(enable_timing=True) for _ in range(each + 1)]
        self.events[0].record()

    def mark(self, index):
        self.events[index + 1].record()

    def seconds(self):
        times = [a.elapsed_time(b) for a, b in zip(self.events, self.events[1:])]
        usual = sorted(times)[len(times) // 4]
        return sum(t if t < 2 * usual else usual for t in times) / 1e3


def wait(kind):
    torch.cuda.synchronize()
    if kind == "reduce":
        torch.cuda.synchronize(1)


def ahead(step, until, steps):
    """When each step ended."""
    marks, ends = [], []
    while not ends or ends[-1] < until:
        step()
        marks.append(torch.cuda.Event())
        marks[-1].record()
        if len(marks) > steps:
            marks.pop(0).synchronize()
            ends.append(time.monotonic())
    for mark in marks:
        mark.synchronize()
        ends.append(time.monotonic())
    return ends


def answer_of(kind, start, seconds, ends, each):
    wall = ends[-1] - start
    return {"kind": kind, "steps": len(ends) * each, "seconds": wall, "rate": len(ends) * each / wall,
            "per_second": per_second(ends, start, seconds, [each] * len(ends))}


def run(work, kind, begin, seconds):
    step, each = work.step(kind), WAIT_EVERY.get(kind, 1)
    step()
    wait(kind)
    while time.monotonic() < begin:
        time.sleep(max(0.0, min(0.01, begin - time.monotonic())))
    start, ends, batches = time.monotonic(), [], []
    if kind in STEPS_AHEAD:
        return answer_of(kind, start, seconds, ahead(step, start + seconds, STEPS_AHEAD[kind]), 1)
    while not ends or ends[-1] < start + seconds:
        timed = Timed(each) if kind in TIMED else None
        for i in range(each):
            step()
            if timed:
                timed.mark(i)
        wait(kind)
        ends.append(time.monotonic())
        batches += [timed] if timed else []
    answer = answer_of(kind, start, seconds, ends, each)
    if batches:  # asked only now: between the batches it would be a gap
        answer["busy_per_second"] = per_second(ends, start, seconds, [timed.seconds() for timed in batches])
    return answer


def main():
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.zeros(1, device="cuda")
    work = Work()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        kind, begin, seconds = line.split()
        print(json.dumps(run(work, kind, float(begin), float(seconds))), flush=True)


if __name__ == "__main__":
    main()
