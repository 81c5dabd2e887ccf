"""Pictures in a notebook, each with a text that says what is seen."""

import io

from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

PAGE_WIDTH = 900  # pixels; a notebook shows nothing wider, and a repository need not carry it


def show(picture: Image.Image | Figure, alt: str) -> None:
    """Display a picture or a matplotlib figure.

    Args:
        picture: what is seen. A figure is closed afterwards, so that it is not shown twice; a picture that is wider
            than a page becomes as wide as one.
        alt: the same in words, for readers and tools that do not see it; it is the output's text.
    """
    if not alt.strip():
        raise ValueError("a picture needs a text that says what is seen")
    png = io.BytesIO()
    if isinstance(picture, Figure):
        import matplotlib.pyplot as plt

        picture.savefig(png, format="png", dpi=100, bbox_inches="tight")
        plt.close(picture)
    else:
        if picture.width > PAGE_WIDTH:
            height = round(picture.height * PAGE_WIDTH / picture.width)
            picture = picture.resize((PAGE_WIDTH, height), Image.Resampling.LANCZOS)
        picture.save(png, format="png", optimize=True)
    data = {"image/png": png.getvalue(), "text/plain": alt}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})
