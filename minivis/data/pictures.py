"""Reading picture files of every kind that data sets hold, as 8-bit RGB."""

from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from minivis.images import as_rgb


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
    return as_rgb(turned)


def _by(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width} × {height}"
