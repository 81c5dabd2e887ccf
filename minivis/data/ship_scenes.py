"""Make the files that `Scenes` ships with: `python -m minivis.data.ship_scenes textures`."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

TEXTURES = Path(__file__).with_name("textures.png")


def make_textures(size: int = 256, levels: int = 24) -> None:
    """Write four grey tiles, one below the other, in the order of `MATERIALS`.

    Grass, brick and gravel are scikit-image's bundled photographs, all CC0 (`skimage.data.grass`, `brick`,
    `gravel`, which name their sources), halved in size; water is smoothed noise, longer than high.
    """
    from skimage import data

    tiles = [_even(np.asarray(Image.fromarray(photo()).resize((size, size), Image.Resampling.LANCZOS), dtype=float))
             for photo in (data.grass, data.brick, data.gravel)]  # fmt: skip
    tiles[1] = tiles[1].T  # bricks that lie
    tiles.append(_even(_ripples(size)))
    steps = np.round(np.clip(np.concatenate(tiles) / 2, -1, 1) * (levels // 2))
    Image.fromarray(np.uint8(128 + steps * (254 // levels))).save(TEXTURES, optimize=True)


def _even(tile: np.ndarray) -> np.ndarray:
    """Mean 0, deviation 1, without the slow changes of light that a photograph has."""
    frequency = np.hypot(np.fft.fftfreq(len(tile))[:, None], np.fft.fftfreq(len(tile)))
    tile = np.fft.ifft2(np.fft.fft2(tile) * (frequency > 1.5 / len(tile))).real
    return tile / tile.std()


def _ripples(size: int) -> np.ndarray:
    noise = np.fft.fft2(np.random.default_rng(0).normal(size=(size, size)))
    fy, fx = np.fft.fftfreq(size)[:, None] * size, np.fft.fftfreq(size) * size
    band = np.exp(-(((np.hypot(fx / 0.35, fy) - 26) / 10) ** 2))
    return np.fft.ifft2(noise * band).real


if __name__ == "__main__":
    if sys.argv[1:] != ["textures"]:
        sys.exit(__doc__)
    make_textures()
