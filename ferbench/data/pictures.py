"""Image files to grey levels."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ferbench.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SIDE = 48
_AT_ONCE = 512
"""Pictures whose files are in memory: a pool's map would read all of them ahead of what it decodes."""
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"II*\x00", b"MM\x00*", b"P2", b"P5", b"P6")


def is_image(head: bytes) -> bool:
    """Whether a file's first bytes are those of a picture."""
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def decode_all(contents: Iterable[bytes], names: Sequence[str], exact_side: int | None = None) -> npt.NDArray[np.uint8]:
    """Grey images `[N, 48, 48]` of image files; colour by ITU-R 601 luma, other sizes by Pillow's bilinear filter.

    Args:
        exact_side: refuse images of another size instead of resizing them.

    Raises:
        InputError: one cannot be read, named by its entry of `names`.
    """
    decode = partial(_decode, exact_side=exact_side)
    # Pillow lets go of the interpreter while it decodes
    with ThreadPoolExecutor(4) as pool:
        pairs, decoded = zip(contents, names, strict=True), list[npt.NDArray[np.uint8]]()
        while some := list(itertools.islice(pairs, _AT_ONCE)):
            decoded += pool.map(decode, *zip(*some, strict=True))
    return np.stack(decoded)


def _grey(picture: Image.Image, *, is_pnm: bool) -> Image.Image:
    # Pillow would cut 16 bits off at 255, and opens those of a PGM, which has no more, in a mode of 32
    if picture.mode.startswith("I;16") or (picture.mode == "I" and is_pnm):
        from PIL import Image

        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError("32 bits a pixel, expected 8 or 16")
    return picture.convert("L")


def _decode(content: bytes, name: str, exact_side: int | None) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as picture:
            grey = _grey(ImageOps.exif_transpose(picture), is_pnm=picture.format == "PPM")
    except Exception as error:
        # Pillow raises whatever its decoders raise
        raise InputError(f"{name}: not readable as an image ({' '.join(str(error).split())[:120]})") from None
    if exact_side and grey.size != (exact_side, exact_side):
        raise InputError(f"{name}: {grey.width}x{grey.height} pixels, expected {exact_side}x{exact_side}")
    if grey.size != (SIDE, SIDE):
        grey = grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(grey)
