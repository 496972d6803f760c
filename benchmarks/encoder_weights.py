"""Take the weights of the encoder that comes with h2e out of the package that published them.

    pip download --no-deps lavlab-shell==0.9.1
    pip install onnx
    python benchmarks/encoder_weights.py lavlab_shell-0.9.1-py3-none-any.whl   # a few seconds

Writes src/h2e/weights/shell.safetensors (16-bit floats) and the licence beside it. Only the encoder of the
segmentation network is taken, 1,468,656 parameters; its decoder is not used.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from _record import CommandLine
from safetensors.numpy import save_file

WEIGHTS = Path(__file__).parents[1] / "src" / "h2e" / "weights"
BLOCKS = (1, 2, 2, 4)
"""Residual blocks of each level."""

MODEL = "shell/weights/model_v1.onnx"
LICENCE = "lavlab_shell-0.9.1.dist-info/licenses/LICENSE.txt"


def read_graph(path: Path) -> tuple[list, dict[str, np.ndarray]]:
    """Read the nodes of the network and its arrays."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    return graph.node, {item.name: numpy_helper.to_array(item) for item in graph.initializer}


def smoke_graph() -> tuple[list, dict[str, np.ndarray]]:
    """Make the nodes and arrays that are read, of one channel each."""
    norms = [f"val_{i}" for i in range(4 * sum(BLOCKS))]
    convolutions = [f"down_layers.{level}.0.conv" for level in range(1, len(BLOCKS))]
    for level, n_blocks in enumerate(BLOCKS):
        for block in range(1, n_blocks + 1):
            convolutions += [f"down_layers.{level}.{block}.conv{n}.conv" for n in (1, 2)]
    arrays = {name: np.ones((1, 1, 1)) for name in norms}
    arrays |= {f"{name}.weight": np.ones((1, 1, 3, 3)) for name in ("convInit.conv", *convolutions)}
    return [SimpleNamespace(op_type="Mul", input=[name]) for name in norms], arrays


def weights_of(nodes: list, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take convolutions by their names; normalizations, which have none in the file, in the order of the graph."""
    used = (name for node in nodes if node.op_type in ("Mul", "Add") for name in node.input)
    scales = iter([arrays[n].ravel() for n in used if n.startswith("val_") and n in arrays and arrays[n].ndim == 3])
    weights = {"first.weight": arrays["convInit.conv.weight"]}
    for level, n_blocks in enumerate(BLOCKS):
        if level:
            weights[f"levels.{level}.0.weight"] = arrays[f"down_layers.{level}.0.conv.weight"]
        for block in range(1, n_blocks + 1):
            place = f"levels.{level}.{block if level else block - 1}.body"
            for number, (norm, convolution) in enumerate(((0, 2), (3, 5)), start=1):
                weights[f"{place}.{norm}.weight"], weights[f"{place}.{norm}.bias"] = next(scales), next(scales)
                name = f"down_layers.{level}.{block}.conv{number}.conv.weight"
                weights[f"{place}.{convolution}.weight"] = arrays[name]
    return {name: np.ascontiguousarray(array, np.float16) for name, array in weights.items()}


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("wheel", type=Path, nargs="?")
    options = parser.parse_args()
    out = options.out or WEIGHTS
    if options.smoke:
        weights, licence = weights_of(*smoke_graph()), b"none"
    elif options.wheel is None:
        parser.error("the wheel of lavlab-shell must be given: pip download --no-deps lavlab-shell==0.9.1")
    else:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(options.wheel) as wheel:
            weights = weights_of(*read_graph(Path(wheel.extract(MODEL, folder))))
            licence = wheel.read(LICENCE)
    source = {"source": f"lavlab-shell 0.9.1, {MODEL} (encoder), float16", "license": "MIT"}
    save_file(weights, out / "shell.safetensors", metadata=source)
    (out / "shell.LICENSE.txt").write_bytes(licence)
    print(f"{sum(array.size for array in weights.values()):,} parameters")


if __name__ == "__main__":
    main()
