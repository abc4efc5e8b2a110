"""Faces drawn by code: something to run on before FER2013 is there, and in tests.

Seven expressions are told by brows, eyes and mouth; every feature varies so much that some faces are ambiguous. The
classes have FER2013's shares, and images vary in pose, light, contrast, occlusion, blur and noise; some training labels
are wrong. Only additions, multiplications, divisions and square roots are used, which IEEE 754 fixes to the last bit:
the same seed gives the same bytes on every machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ferbench.data.assemble import Images, assemble
from ferbench.data.dataset import FER2013_CLASSES, FER2013_COUNTS, SPLITS, Dataset

VERSION = 1
"""Raised whenever the same seed would give other faces."""
SIDE = 48
WRONG_LABELS = 0.05
"""Share of training labels replaced by another class."""
SIZES = {"train": 2400, "val": 300, "test": 300}

Array = npt.NDArray[np.float64]

# Rows: classes in FER2013's order. Columns, in face coordinates (the head is about 2 wide, y points down):
_FEATURES = ("brow_height", "brow_slope", "eye", "mouth_curve", "mouth_open", "mouth_width", "nose_wrinkle")
_EXPRESSIONS = np.array(
    [
        [0.07, -0.28, 0.75, -0.12, 0.04, 0.95, 0.15],  # angry: brows down and inward
        [0.03, -0.14, 0.60, -0.16, 0.10, 0.85, 0.90],  # disgust: nose wrinkled, mouth raised
        [-0.08, 0.20, 1.30, -0.07, 0.16, 0.95, 0.05],  # fear: inner brows up, eyes wide, mouth stretched
        [0.00, 0.02, 0.80, 0.20, 0.10, 1.15, 0.05],  # happy: mouth corners up
        [0.00, 0.24, 0.70, -0.18, 0.00, 0.85, 0.05],  # sad: inner brows up, mouth corners down
        [-0.14, 0.05, 1.45, 0.00, 0.30, 0.70, 0.00],  # surprise: brows up, mouth open and round
        [0.00, 0.00, 1.00, 0.00, 0.00, 1.00, 0.05],  # neutral
    ]
)
_SPREAD = np.array([0.035, 0.09, 0.15, 0.07, 0.05, 0.10, 0.15])
"""How much each feature varies within an expression."""


def generate(seed: int = 0, train: int | None = None, val: int | None = None, test: int | None = None) -> Dataset:
    """A data set of drawn faces, by default of `SIZES` images."""
    random = np.random.Generator(np.random.PCG64(seed))
    wanted = {"train": train, "val": val, "test": test}
    images, labels, splits = [], [], []
    for code, split in enumerate(SPLITS):
        n = wanted[split] or SIZES[split]
        true = _labels(n, split)
        images.append(_draw(true, random))
        labels.append(_with_errors(true, random) if split == "train" else true)
        splits.append(np.full(n, code, np.uint8))
    total = sum(map(len, labels))
    return assemble(
        Images(
            name="synthetic",
            edition="synthetic",
            classes=FER2013_CLASSES,
            images=np.concatenate(images),
            labels=np.concatenate(labels),
            splits=np.concatenate(splits),
            sources=[f"face {i} of seed {seed}" for i in range(total)],
        )
    )


def _labels(n: int, split: str) -> npt.NDArray[np.uint8]:
    """[n] classes in the shares of FER2013's split, at least one of each as far as n allows."""
    counts = np.array(FER2013_COUNTS[split])
    exact = counts / counts.sum() * n
    whole = np.maximum(exact.astype(int), 1)
    whole[np.argmax(whole)] += n - whole.sum()
    return np.repeat(np.arange(len(counts)), whole).astype(np.uint8)


def _with_errors(true: npt.NDArray[np.uint8], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    wrong = random.random(len(true)) < WRONG_LABELS
    other = (true + random.integers(1, len(FER2013_CLASSES), len(true))) % len(FER2013_CLASSES)
    return np.where(wrong, other, true).astype(np.uint8)


def _around(random: np.random.Generator, spread: float | Array, n: int, *more: int) -> Array:
    """Bell-shaped noise of standard deviation `spread` from sums of uniforms, `[n, *more]`."""
    # numpy's normal draws call log and exp, whose last bit differs between machines
    shape = (n, *more)
    total = random.random(shape) + random.random(shape) + random.random(shape) + random.random(shape) - 2.0
    return total * 1.7320508075688772 * spread


def _draw(labels: npt.NDArray[np.uint8], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    chunks = [_draw_chunk(labels[i : i + 200], random) for i in range(0, len(labels), 200)]
    return np.concatenate(chunks)


def _draw_chunk(labels: npt.NDArray[np.uint8], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    n = len(labels)
    values = _EXPRESSIONS[labels] + _around(random, _SPREAD, n, len(_FEATURES))
    face = {name: values[:, i, None, None] for i, name in enumerate(_FEATURES)}
    x, y = _face_coordinates(n, random)

    def around(spread: float) -> Array:
        return _around(random, spread, n, 1, 1)

    skin = 0.62 + around(0.10)
    image = 0.35 + around(0.18) + 0.0 * x
    head = _inside(_ellipse(x, y, 0.0, 0.05, 0.86 + around(0.04), 1.12 + around(0.05)))
    hair = _inside(_ellipse(x, y, 0.0, -0.25, 0.98 + around(0.05), 1.05 + around(0.08)))
    image = _paint(image, hair, 0.18 + around(0.10))
    image = _paint(image, head, skin)
    image = _paint(image, head * _step(-0.62 + around(0.08) - y), 0.2 + around(0.08))
    for side in (-1.0, 1.0):
        image = _eye(image, x, y, side, face, skin, around)
    image = _nose(image, x, y, face, skin)
    image = _mouth(image, x, y, face, skin, around)
    image = _occlude(image, x, y, random, n)
    return _photograph(image, x, y, random, n)


def _face_coordinates(n: int, random: np.random.Generator) -> tuple[Array, Array]:
    """(x, y) `[n, 48, 48]` of each pixel in its face's own coordinates: shift, rotation, scale and slight yaw."""
    axis = (np.arange(SIDE) + 0.5) / SIDE * 2.0 - 1.0
    x, y = axis[None, None, :] - _around(random, 0.07, n, 1, 1), axis[None, :, None] - _around(random, 0.06, n, 1, 1)
    # cosine and sine through the half angle's tangent
    tangent = _around(random, 0.06, n, 1, 1)
    cosine, sine = (1 - tangent * tangent) / (1 + tangent * tangent), 2 * tangent / (1 + tangent * tangent)
    scale = 1.22 + _around(random, 0.07, n, 1, 1)
    x, y = (cosine * x + sine * y) * scale, (cosine * y - sine * x) * scale
    yaw = _around(random, 0.12, n, 1, 1)
    return x * (1.0 + yaw * x), y


def _step(distance: Array, softness: float = 0.05) -> Array:
    """0 where distance is negative, 1 where it is positive, smooth between."""
    t = np.clip(distance / softness * 0.5 + 0.5, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _ellipse(x: Array, y: Array, cx: Array | float, cy: Array | float, rx: Array | float, ry: Array | float) -> Array:
    """Roughly the distance to an ellipse, positive inside."""
    u, v = (x - cx) / rx, (y - cy) / ry
    return (1.0 - np.sqrt(u * u + v * v)) * np.minimum(rx, ry)


def _inside(distance: Array) -> Array:
    return _step(distance)


def _stroke(distance: Array, within: Array, thickness: float) -> Array:
    """A line where `distance` is near 0, as far as `within` is positive."""
    return _step(thickness - np.abs(distance)) * _step(within)


def _paint(image: Array, mask: Array, tone: Array | float) -> Array:
    return image + mask * (tone - image)


def _eye(image: Array, x: Array, y: Array, side: float, face: dict[str, Array], skin: Array, around) -> Array:  # type: ignore[no-untyped-def]
    cx, cy = side * 0.36, -0.14
    opening = 0.105 * np.maximum(face["eye"], 0.15)
    image = _paint(image, _inside(_ellipse(x, y, cx, cy, 0.20, opening)), 0.88 + around(0.04))
    iris = np.minimum(_ellipse(x, y, cx, cy, 0.085, 0.10), _ellipse(x, y, cx, cy, 0.20, opening))
    image = _paint(image, _inside(iris), 0.12 + around(0.05))
    image = _paint(image, _stroke(y - cy + opening, 0.2 - np.abs(x - cx), 0.02), skin * 0.45)
    # slope is positive where the inner end is raised
    inward = (cx - x) * side
    brow = y - (cy - 0.27 + face["brow_height"] - face["brow_slope"] * inward)
    return _paint(image, _stroke(brow, 0.24 - np.abs(x - cx), 0.045), 0.14 + around(0.06))


def _nose(image: Array, x: Array, y: Array, face: dict[str, Array], skin: Array) -> Array:
    image = _paint(image, 0.5 * _stroke(x - 0.05, 0.2 - np.abs(y - 0.08), 0.02), skin * 0.7)
    image = _paint(image, 0.8 * _stroke(y - 0.30, 0.13 - np.abs(x), 0.025), skin * 0.55)
    for side in (-1.0, 1.0):
        fold = y - 0.06 - 0.5 * np.abs(x - side * 0.12)
        visible = np.clip(face["nose_wrinkle"], 0.0, 1.0)
        image = _paint(image, visible * _stroke(fold, 0.09 - np.abs(x - side * 0.15), 0.02), skin * 0.45)
    return image


def _mouth(image: Array, x: Array, y: Array, face: dict[str, Array], skin: Array, around) -> Array:  # type: ignore[no-untyped-def]
    width = 0.34 * np.maximum(face["mouth_width"], 0.4)
    u = x / width
    middle = 0.60 + around(0.02) + face["mouth_curve"] * (0.5 - u * u)
    opening = np.maximum(face["mouth_open"], 0.0) * np.sqrt(np.maximum(1.0 - u * u, 0.0))
    within = width - np.abs(x)
    image = _paint(image, _step(opening - np.abs(y - middle)) * _step(within), 0.16 + around(0.05))
    lips = np.abs(np.abs(y - middle) - opening)
    return _paint(image, _step(0.035 - lips) * _step(within), skin * 0.45)


def _occlude(image: Array, x: Array, y: Array, random: np.random.Generator, n: int) -> Array:
    """Glasses for some, a hand or a scarf over a corner for others."""
    kind = random.random((n, 1, 1))
    rims = np.zeros_like(image)
    for side in (-1.0, 1.0):
        rims = np.maximum(rims, _stroke(_ellipse(x, y, side * 0.36, -0.12, 0.28, 0.23), 1.0 + 0.0 * x, 0.03))
    image = _paint(image, rims * (kind < 0.15), 0.1)
    slope, at = _around(random, 0.5, n, 1, 1), 0.75 + _around(random, 0.15, n, 1, 1)
    hand_side = np.where(random.random((n, 1, 1)) < 0.5, 1.0, -1.0)
    hand = _step(hand_side * x + slope * y - at) * (kind > 0.85)
    return _paint(image, hand, 0.5 + _around(random, 0.12, n, 1, 1))


def _photograph(image: Array, x: Array, y: Array, random: np.random.Generator, n: int) -> npt.NDArray[np.uint8]:
    """Light from a side, contrast, blur for some and noise, as uint8."""
    light = 1.0 + _around(random, 0.14, n, 1, 1) * x + _around(random, 0.10, n, 1, 1) * y
    contrast = np.maximum(1.0 + _around(random, 0.2, n, 1, 1), 0.4)
    image = (image * light - 0.5) * contrast + 0.5 + _around(random, 0.07, n, 1, 1)
    blurred = random.random((n, 1, 1)) < 0.4
    image = np.where(blurred, _smoothed(_smoothed(image, 1), 2), image)
    noise = 0.02 + 0.06 * random.random((n, 1, 1))
    image = image + _around(random, 1.0, n, SIDE, SIDE) * noise
    return np.clip(image * 255.0 + 0.5, 0, 255).astype(np.uint8)


def _smoothed(image: Array, axis: int) -> Array:
    """Each pixel's mean with its two neighbours along an axis, weighted 1 2 1."""
    padded = np.pad(image, [(0, 0), *((1, 1) if a == axis else (0, 0) for a in (1, 2))], mode="edge")
    if axis == 1:
        return (padded[:, :-2] + 2.0 * padded[:, 1:-1] + padded[:, 2:]) * 0.25
    return (padded[:, :, :-2] + 2.0 * padded[:, :, 1:-1] + padded[:, :, 2:]) * 0.25
