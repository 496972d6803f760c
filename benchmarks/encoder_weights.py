"""Take the weights of the encoder that comes with h2e out of the package that published them.

    pip download --no-deps lavlab-shell==0.9.1
    pip install onnx
    python benchmarks/encoder_weights.py lavlab_shell-0.9.1-py3-none-any.whl

Writes src/h2e/weights/shell.safetensors (16-bit floats) and the licence beside it. Only the encoder of the
segmentation network is taken, 1,468,656 parameters; its decoder is not used.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

OUT = Path(__file__).parents[1] / "src" / "h2e" / "weights"
BLOCKS = (1, 2, 2, 4)
"""Residual blocks of each level."""

LICENCE = "lavlab_shell-0.9.1.dist-info/licenses/LICENSE.txt"


def weights_of(path: Path) -> dict[str, np.ndarray]:
    """Convolutions by their names; normalizations, which have none in the file, in the order of the graph."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    used = (name for node in graph.node if node.op_type in ("Mul", "Add") for name in node.input)
    scales = iter([arrays[n].ravel() for n in used if n.startswith("val_") and n in arrays and arrays[n].ndim == 3])
    found = {"first.weight": arrays["convInit.conv.weight"]}
    for level, n_blocks in enumerate(BLOCKS):
        if level:
            found[f"levels.{level}.0.weight"] = arrays[f"down_layers.{level}.0.conv.weight"]
        for block in range(1, n_blocks + 1):
            place = f"levels.{level}.{block if level else block - 1}.body"
            for number, (norm, convolution) in enumerate(((0, 2), (3, 5)), start=1):
                found[f"{place}.{norm}.weight"], found[f"{place}.{norm}.bias"] = next(scales), next(scales)
                name = f"down_layers.{level}.{block}.conv{number}.conv.weight"
                found[f"{place}.{convolution}.weight"] = arrays[name]
    return {name: np.ascontiguousarray(array, np.float16) for name, array in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(parser.parse_args().wheel) as wheel:
        wheel.extractall(folder)
        weights = weights_of(Path(folder) / "shell" / "weights" / "model_v1.onnx")
        (OUT / "shell.LICENSE.txt").write_bytes((Path(folder) / LICENCE).read_bytes())
    source = {"source": "lavlab-shell 0.9.1, shell/weights/model_v1.onnx (encoder), float16", "license": "MIT"}
    save_file(weights, OUT / "shell.safetensors", metadata=source)
    print(f"{sum(array.size for array in weights.values()):,} parameters")


if __name__ == "__main__":
    main()
