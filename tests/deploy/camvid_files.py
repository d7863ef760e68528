"""A small CamVid on disk, in SegNet's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_camvid(root: Path, size: tuple[int, int], train: int, val: int) -> Path:
    """Images of noise, (H, W) = `size`; labels in upright stripes of the values 0 to 11, as wide as one another."""
    rng = np.random.default_rng(0)
    stripes = np.arange(size[1]) * 12 // size[1]
    for split, count in (("train", train), ("val", val)):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(root / split / f"{i:02}.png")
            label = np.tile(stripes.astype(np.uint8), (size[0], 1))
            Image.fromarray(label).save(root / f"{split}annot" / f"{i:02}.png")
    return root
