"""Reading picture files of every kind that data sets hold, as 8-bit RGB."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps


def open_picture(path: Path | str, size: tuple[int, int] | None = None) -> Image.Image:
    """The picture in a file, wholly decoded, in 8-bit RGB.

    Palettes and grey become RGB, transparency is dropped, 16-bit grey is divided by 257 (so that 0..65535
    becomes 0..255). A camera may store a picture lying on its side and note in its EXIF orientation how to
    turn it. It is turned as the note says, as every viewer and annotation tool does, unless `size` fits the
    picture as it is stored and not as it is turned: then its annotations were made on the stored pixels.

    Args:
        path: the file.
        size: (height, width) that the picture's annotations were made for.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be decoded, is truncated, or has another size; the message does not
            name the file.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            turned = ImageOps.exif_transpose(picture)
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except FileNotFoundError:
        raise
    except Exception as error:  # on broken bytes, decoders raise all kinds of errors
        raise ValueError(f"the picture cannot be read: {error or type(error).__name__}") from error

    if size is not None:
        stored_size, turned_size = picture.size[::-1], turned.size[::-1]
        if size not in (stored_size, turned_size):
            turning = f" ({_by(turned_size)} turned by its EXIF orientation {orientation})"
            raise ValueError(
                f"the picture is {_by(stored_size)} pixels{turning if turned_size != stored_size else ''}, "
                f"its annotations are for {_by(size)} (width × height)"
            )
        if size != turned_size:
            turned = picture
    return _as_rgb(turned)


def _by(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width} × {height}"


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(
        "I"
    ):  # 16-bit grey; Pillow's own conversion would cut everything above 255 to white
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"the picture's values, {values.min()}..{values.max()}, do not fit into 16 bits")
        picture = Image.fromarray((values / 257).round().astype(np.uint8))
    elif picture.mode == "F":
        raise ValueError("the picture holds floats, whose range is not known; expected 8 or 16 bits")
    return picture.convert("RGB")
