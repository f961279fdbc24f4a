#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Networks go from PyTorch to this library and back, in safetensors files and as TorchScript.

    torch_exchange.py PROGRAM [LIBTORCH_BLOCKS]

PROGRAM is torch_exchange, LIBTORCH_BLOCKS the example libtorch_blocks. Ends with 77 where PyTorch
is not installed, and with 1 where a difference is found.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile

try:
    import torch
    from torch import nn

    torch.nn.functional  # A folder that happens to be called torch has none.
except (ImportError, AttributeError):
    print("skipped: there is no PyTorch (Debian: python3-torch)")
    sys.exit(77)

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def save_file(tensors, path, metadata=None):
    """What safetensors.torch.save_file does: a header's length, the header, the numbers."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, tensor in tensors.items():
        dtype = next(key for key, value in DTYPES.items() if value == tensor.dtype)
        numbers = bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())
        offsets = [len(data), len(data) + len(numbers)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        data += numbers
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def load_file(path):
    """The tensors of such a file, and its metadata."""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    metadata, data = header.pop("__metadata__", {}), bytearray(content[8 + length :])
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        numbers = torch.frombuffer(data[first:last], dtype=DTYPES[entry["dtype"]])
        tensors[name] = numbers.reshape(entry["shape"])
    return tensors, metadata


class Branch(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 16)
        self.fc2 = nn.Linear(16, width)

    def forward(self, h):
        return self.fc2(nn.functional.gelu(self.fc1(self.norm(h))))


class Classifier(nn.Module):
    """Residual, trained with stochastic depth: each block is skipped for a quarter of the steps."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(5, 8)
        self.blocks = nn.ModuleList(Branch(8) for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        h = self.stem(x)
        for block in self.blocks:
            if not self.training or torch.rand(()) < 0.75:
                h = h + block(h)
        return self.head(h)


def train(model):
    x = torch.randn(256, 5)
    labels = (x[:, :3] + x[:, 2:] ** 2).argmax(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
    model.eval()


def require(what, found, expected, tolerance=1e-5):
    difference = (found - expected).abs().max().item()
    print(f"{what}: largest difference {difference:.1e}")
    if found.shape != expected.shape or not difference <= tolerance * expected.abs().max().item():
        sys.exit(f"{what}: outputs differ")


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def main(program, libtorch_blocks=None):
    torch.manual_seed(1)
    model = Classifier()
    train(model)
    x = torch.randn(6, 5)
    lines = "\n".join(" ".join(repr(number) for number in row) for row in x.tolist())
    folder = tempfile.TemporaryDirectory()
    path = os.path.join(folder.name, "classifier.safetensors")

    with torch.no_grad():
        # From there to here, in each type of numbers, with a self-test.
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
            rounded = Classifier().eval()
            rounded.load_state_dict(state)
            expected = rounded(x)
            save_file(state, path, {"survival_probabilities": "[0.75,0.75,0.75]",
                                    "self_test": json.dumps({"input": x.tolist(),
                                                             "output": expected.tolist()})})
            answers = run(program, "read", path, input=lines)
            found = torch.tensor([[float(word) for word in line.split()]
                                  for line in answers.splitlines()])
            require(f"read, {dtype}", found, expected)

        # A self-test that is not passed is noticed.
        save_file(state, path, {"self_test": json.dumps({"input": x.tolist(),
                                                         "output": (expected + 1).tolist()})})
        refused = subprocess.run([program, "read", path], input=lines, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if refused.returncode != 2 or "self-test" not in refused.stderr:
            sys.exit(f"a self-test that fails: got {refused.returncode}, {refused.stderr}")

        # And from here to there.
        run(program, "write", path)
        tensors, metadata = load_file(path)
        model.load_state_dict(tensors)
        test = json.loads(metadata["self_test"])
        require("written", torch.tensor(test["output"]), model(torch.tensor(test["input"])))
        if json.loads(metadata["survival_probabilities"]) != [0.75, 0.75, 0.75]:
            sys.exit(f"survival probabilities: got {metadata['survival_probabilities']}")

        # Block by block, as TorchScript.
        if libtorch_blocks:
            files = []
            for k, block in enumerate(model.blocks):
                files.append(os.path.join(folder.name, f"block{k}.pt"))
                torch.jit.script(block).save(files[-1])
            print(run(libtorch_blocks, "8", *files), end="")


main(*sys.argv[1:])
