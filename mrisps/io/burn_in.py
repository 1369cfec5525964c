"""A line of text in the pixels of an image, so that nobody can look at the image without it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["burn_in"]


def burn_in(pixels: NDArray[np.float32], text: str, low: float, high: float) -> NDArray[np.float32]:
    """A copy with a line across the top, about as wide as the image.

    Parameters
    ----------
    pixels
        (y, x), as they are displayed.
    text
        The line, in ASCII.
    low, high
        Values of the bar behind the text, and of the text.
    """
    font = ImageFont.load_default()
    left, top, right, bottom = (
        int(value) for value in ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), text, font)
    )
    drawn = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(drawn).text((1 - left, 1 - top), text, fill=255, font=font)
    n_y, n_x = pixels.shape
    size = (n_x, min(n_y, max(3, round(drawn.height * n_x / drawn.width))))
    drawn_small = np.asarray(drawn.resize(size, Image.Resampling.BILINEAR), np.float32)
    letters = drawn_small > 0.4 * drawn_small.max()
    marked = pixels.copy()
    marked[: size[1]] = np.where(letters, np.float32(high), np.float32(low))
    return marked
