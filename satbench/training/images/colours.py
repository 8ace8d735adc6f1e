"""Colour augmentation of images, as in the published loader of SAT; runs in worker processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

COMPONENTS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
"""The principal components of ImageNet's pixels, (red, green, blue) by component."""
SPREADS = np.array([0.2175, 0.0188, 0.0045])
"""The factor of each component, for pixels in [0, 1]; both as in Facebook's fb.resnet.torch."""


def jittered(picture: Image, jitter: float, generator: np.random.Generator) -> Image:
    """Multiply brightness, contrast and saturation by factors from U(1 - jitter, 1 + jitter).

    They are changed in a random order, as in torchvision's ColorJitter.
    """
    from torchvision.transforms.v2 import functional as v2

    changes = (v2.adjust_brightness, v2.adjust_contrast, v2.adjust_saturation)
    factors = generator.uniform(1 - jitter, 1 + jitter, len(changes))
    for which in generator.permutation(len(changes)):
        picture = changes[which](picture, float(factors[which]))
    return picture


def lit(picture: Image, deviation: float, generator: np.random.Generator) -> Image:
    """Add one colour to every pixel, along the principal components of ImageNet.

    Each component is weighted by its spread and a factor from N(0, deviation²): the lighting noise
    of Krizhevsky et al., 2012 (ImageNet Classification with Deep Convolutional Neural Networks),
    section 4.1.  The pixels stay bytes, rounded and clipped to 0 … 255.
    """
    from PIL import Image

    shift = COMPONENTS @ (SPREADS * generator.normal(0.0, deviation, len(SPREADS)))
    pixels = np.asarray(picture) + 255 * shift
    return Image.fromarray(np.rint(np.clip(pixels, 0, 255)).astype(np.uint8))
