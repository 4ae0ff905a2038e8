"""A training loop's processes: spawned loader workers, and a spawned child that uses the GPU itself."""
import json

import torch
import torch.multiprocessing as mp
from torch.utils.data import DataLoader, Dataset


class Numbers(Dataset):
    def __len__(self):
        return 128

    def __getitem__(self, index):
        return torch.full((1024,), float(index))


def child(queue):
    torch.zeros(1, device="cuda")
    queue.put(torch.cuda.mem_get_info()[1])


def main():
    loader = DataLoader(Numbers(), batch_size=8, num_workers=2, multiprocessing_context="spawn",
                        pin_memory=True)
    total, batches = 0.0, 0
    for batch in loader:
        total += float(batch.cuda(non_blocking=True).double().sum())
        batches += 1
    context = mp.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    child_total = queue.get(timeout=60)
    process.join()
    print(json.dumps({"batches": batches, "sum": total, "expected": 1024.0 * sum(range(128)),
                      "child_total": child_total}))


if __name__ == "__main__":
    main()
