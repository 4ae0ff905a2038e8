"""torch_train.py MODEL: trains as told by lines on stdin ("N": N steps) with a fixed seed.

Answers each line with the seconds it took and the bits of every loss. transformer: four encoder layers
that keep the GPU busy, AdamW. mlp: many small layers, so that the time goes into launches. Where there
are many CPUs the process keeps to four of them, so that two trainings in turn run on the same ones.
"""
import json
import sys
import time
import os

if len(os.sched_getaffinity(0)) >= 8:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[2:6])
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"

import torch  # noqa: E402
from torch import nn  # noqa: E402


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(1024, 16, 4096, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 4)
        self.head = nn.Linear(1024, 1024)

    def forward(self, batch):
        return self.head(self.layers(batch))


def mlp():
    layers = []
    for _ in range(12):
        layers += [nn.Linear(128, 128), nn.ReLU()]
    return nn.Sequential(*layers)


torch.manual_seed(1234)
torch.use_deterministic_algorithms(True)
torch.backends.cudnn.benchmark = False
torch.backends.cuda.enable_flash_sdp(False)  # plain attention: the same sums in the same order
torch.backends.cuda.enable_mem_efficient_sdp(False)
torch.backends.cuda.enable_cudnn_sdp(False)
kind = sys.argv[1]
model = (Transformer() if kind == "transformer" else mlp()).cuda()
shape = (32, 256, 1024) if kind == "transformer" else (64, 128)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
generator = torch.Generator(device="cuda")
generator.manual_seed(99)
inputs = torch.randn(8, *shape, device="cuda", generator=generator)
targets = torch.randn(8, *shape, device="cuda", generator=generator)
done = 0


def train_step():
    global done
    batch = done % 8
    done += 1
    optimizer.zero_grad(set_to_none=True)
    loss = nn.functional.mse_loss(model(inputs[batch]), targets[batch])
    loss.backward()
    optimizer.step()
    return loss.detach()


for _ in range(20):
    train_step()
torch.cuda.synchronize()
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    begin = time.perf_counter()
    losses = [train_step() for _ in range(int(line))]
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "losses": [float(loss).hex() for loss in losses]}), flush=True)
