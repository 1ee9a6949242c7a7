"""Small data sets of every layout, of three classes that differ in brightness."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("dark", "grey", "light")


def samples(n: int, seed: int, shape: tuple[int, ...] = (3, 8, 8)) -> tuple[np.ndarray, np.ndarray]:
    """Noisy uint8 images, n of shape (C, H, W), and their classes."""
    draws = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    level = 40 + 70 * labels.reshape(-1, *[1] * len(shape))
    return (level + draws.integers(30, size=(n, *shape))).astype(np.uint8), labels


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    """One image of shape (C, H, W) as PNG, JPEG or WebP."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format=kind)
    return buffer.getvalue()


def write_folders(
    root: Path,
    parts: dict[str, tuple[np.ndarray, np.ndarray]],
    kind: str = "PNG",
    names: tuple[str, ...] = CLASSES,
) -> Path:
    """A folder with a sub-folder a class; part "" writes no folder of a part."""
    for part, (images, labels) in parts.items():
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = root / part / names[label] / f"{i:04}.{kind.lower()}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(image, kind))
    return root


def write_parquet(
    root: Path,
    parts: dict[str, tuple[np.ndarray, np.ndarray]],
    kind: str = "PNG",
    names: tuple[str, ...] = (),
) -> Path:
    """One parquet file a part, as the Hugging Face hub stores them."""
    root.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in parts.items():
        pictures = [{"bytes": encoded(image, kind), "path": None} for image in images]
        table = pa.table({"image": pictures, "label": pa.array(labels, pa.int64())})
        if names:
            features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel"}}
            features["label"]["names"] = list(names)
            about = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": about})
        pq.write_table(table, root / f"{part}-00000-of-00001.parquet")
    return root


def write_idx(root: Path, parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """The four idx files of MNIST's layout; parts are called train and t10k."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, (images, labels) in parts.items():
        images = images.reshape(len(images), *images.shape[-2:])
        for what, array in (("images", images), ("labels", labels.astype(np.uint8))):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            head = bytes([0, 0, 8, array.ndim]) + sizes
            file = raw / f"{part}-{what}-idx{array.ndim}-ubyte"
            file.write_bytes(head + array.tobytes())
    return root
