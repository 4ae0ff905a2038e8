"""Prints what PyTorch says the GPU has."""
import json

import torch

torch.zeros(1, device="cuda")
free, total = torch.cuda.mem_get_info()
print(json.dumps({"free": free, "total": total,
                  "properties_total": torch.cuda.get_device_properties(0).total_memory,
                  "name": torch.cuda.get_device_name(0)}))
