"""Encoded images (PNG, JPEG, WebP), decoded when they are needed."""

import hashlib
import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

IN_MEMORY_BYTES = 2**30
"""Sets of up to this size, decoded, are decoded once and kept; of larger ones each batch is decoded
whenever it is needed. Our choice: a tenth of a laptop's memory (CIFAR-10 has 184 MB)."""

_LOSSLESS = ("PNG", "BMP", "GIF", "PPM", "TIFF")


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, without its full stop."""
    return str(error).strip().split("\n")[0].rstrip(".")


@dataclass(frozen=True)
class Picture:
    """An encoded image.

    Attributes:
        source: Its file, or its bytes.
        where: File and row, for messages.
        content: Hash of its bytes.
        size: Height and width [pixels].
        is_grey: Whether it has one channel.
        encoding: How it is compressed with loss; "" where it is not.
    """

    source: Path | bytes
    where: str
    content: bytes
    size: tuple[int, int]
    is_grey: bool
    encoding: str

    @classmethod
    def of(cls, source: Path | bytes, where: str) -> "Picture":
        """Read the header of an image.

        Raises:
            ValueError: If it is no image, or has 16 bits a channel.
        """
        encoded = source if isinstance(source, bytes) else source.read_bytes()
        with _opened(encoded, where) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(
                    f"{where}: the image has more than 8 bits a channel (mode {image.mode}); "
                    "write such data as an array (.npz)."
                )
            is_lossy = image.format not in _LOSSLESS and not _is_lossless_webp(encoded)
            return cls(
                source,
                where,
                hashlib.blake2b(encoded, digest_size=16).digest(),
                (image.height, image.width),
                image.mode in ("1", "L"),
                str(image.format) if is_lossy else "",
            )

    def decoded(self, channels: int, resize: tuple[int, int] | None) -> np.ndarray[Any, Any]:
        """Decode it to uint8, shape (C, H, W).

        Args:
            channels: 1 for grey, 3 for RGB.
            resize: Length that the shorter side is resized to, and the side of the square that is
                then cut from its centre [pixels]; None: neither.

        Raises:
            ValueError: If it cannot be decoded.
        """
        encoded = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        with _opened(encoded, self.where) as image:
            try:
                image = image.convert("RGB" if channels == 3 else "L")
                if resize is not None:
                    image = _resized(image, *resize)
                pixels = np.asarray(image)
            except _ERRORS as error:
                raise _damaged(self.where, error) from error
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


class EncodedImages:
    """Encoded images of one shape, indexed like a uint8 tensor of shape (n, C, H, W).

    An index of the first dimension gives a view, without decoding; `decoded` gives the tensor.

    Args:
        pictures: The images.
        image_shape: Channels, height and width of one decoded image.
        resize: As for `Picture.decoded`.

    Example:
        >>> from PIL import Image
        >>> Image.new("RGB", (6, 4)).save("mine.jpg")
        >>> encoded = EncodedImages([Picture.of(Path("mine.jpg"), "mine.jpg")], (3, 4, 6))
        >>> encoded.shape, encoded.decoded().dtype
        (torch.Size([1, 3, 4, 6]), torch.uint8)
    """

    dtype = torch.uint8

    def __init__(
        self,
        pictures: Sequence[Picture],
        image_shape: tuple[int, int, int],
        resize: tuple[int, int] | None = None,
    ) -> None:
        self._pictures, self._resize = pictures, resize
        self._image_shape = image_shape
        self._chosen = torch.arange(len(pictures))
        self._kept: list[Tensor] = []  # pixels of all pictures, and which are decoded; of all views
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._chosen)

    @property
    def shape(self) -> torch.Size:
        """(n, C, H, W)."""
        return torch.Size((len(self), *self._image_shape))

    @property
    def ndim(self) -> int:
        """4."""
        return 4

    def numel(self) -> int:
        """Number of pixel values."""
        return self.shape.numel()

    def is_floating_point(self) -> bool:
        """False."""
        return False

    @property
    def hashes(self) -> list[bytes]:
        """A hash of each image's bytes as encoded, 16 bytes."""
        return [self._pictures[i].content for i in self._chosen.tolist()]

    def where(self, row: int) -> str:
        """File of an image, for messages."""
        return self._pictures[int(self._chosen[row])].where

    def __getitem__(self, index: Any) -> "EncodedImages":
        """A view of some images: a slice, indices, or a mask (bool, shape (n,))."""
        if isinstance(index, Tensor):
            index = index.cpu()
        return self._view(self._chosen[index])

    def to(self, device: torch.device | str) -> "EncodedImages":
        """A view whose images are decoded to an accelerator."""
        view = self._view(self._chosen)
        view.device = torch.device(device)
        return view

    @property
    def is_kept(self) -> bool:
        """Whether images that were decoded stay in memory."""
        return len(self._pictures) * self.shape[1:].numel() <= IN_MEMORY_BYTES

    def decoded(self) -> Tensor:
        """Decode the images.

        Returns:
            uint8, shape (n, C, H, W).

        Raises:
            ValueError: If one cannot be decoded; the message names its file.
        """
        if not self.is_kept:
            return self._decode(self._chosen).to(self.device)
        if not self._kept:
            n = len(self._pictures)
            pixels = torch.empty((n, *self._image_shape), dtype=torch.uint8)
            self._kept += [pixels, torch.zeros(n, dtype=torch.bool)]
        pixels, is_decoded = self._kept
        missing = self._chosen[~is_decoded[self._chosen]]
        if len(missing):
            pixels[missing] = self._decode(missing)
            is_decoded[missing] = True
        return pixels[self._chosen].to(self.device)

    def _decode(self, chosen: Tensor) -> Tensor:
        channels, height, width = self._image_shape
        images = torch.empty((len(chosen), *self._image_shape), dtype=torch.uint8)
        pixels = images.numpy()
        for row, number in enumerate(chosen.tolist()):
            picture = self._pictures[number]
            decoded = picture.decoded(channels, self._resize)
            if decoded.shape[1:] != (height, width):
                raise ValueError(f"{picture.where} has changed since it was opened; start again.")
            pixels[row] = decoded
        return images

    def _view(self, chosen: Tensor) -> "EncodedImages":
        view = EncodedImages.__new__(EncodedImages)
        view.__dict__.update(self.__dict__, _chosen=chosen)
        return view


def decoded(images: Tensor | EncodedImages) -> Tensor:
    """Images as a tensor; encoded ones are decoded."""
    return images.decoded() if isinstance(images, EncodedImages) else images


def batches(images: Tensor | EncodedImages, size: int) -> Iterator[Tensor]:
    """Images in batches of one size, decoded batch by batch; the last may be smaller."""
    for first in range(0, len(images), size):
        yield decoded(images[first : first + size])


def encoded_images(
    pictures: Sequence[Picture], image_size: int | None, resize: int | None, what: str
) -> EncodedImages:
    """Encoded images as one input.

    Args:
        pictures: The images, at least one. Those with one channel become RGB if any has three.
        image_size: Side of the square that is cut from the centre [pixels]; None: images as they
            are, which must then all have one size.
        resize: Length that the shorter side is resized to before; None: 256 / 224 of `image_size`,
            as for ImageNet.
        what: Name of the data set, for messages.

    Raises:
        ValueError: If their sizes differ and there is no `image_size`.
    """
    channels = 1 if all(picture.is_grey for picture in pictures) else 3
    if image_size is not None:
        shorter = round(image_size * 256 / 224) if resize is None else resize
        return EncodedImages(pictures, (channels, image_size, image_size), (shorter, image_size))
    first = pictures[0]
    other = next((picture for picture in pictures if picture.size != first.size), None)
    if other is not None:
        raise ValueError(
            f"The images of {what} have several sizes ({first.where}: {_size(first)}, "
            f"{other.where}: {_size(other)}); give a size that they are resized and cropped to: "
            f"{what},image_size={min(*first.size, *other.size)}."
        )
    return EncodedImages(pictures, (channels, *first.size))


def _size(picture: Picture) -> str:
    return f"{picture.size[0]} x {picture.size[1]}"


def _resized(image: Any, shorter: int, side: int) -> Any:
    """Resize the shorter side, then cut a square from the centre, as torchvision does."""
    from PIL import Image

    width, height = image.size
    if width <= height:
        size = shorter, int(shorter * height / width)
    else:
        size = int(shorter * width / height), shorter
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return image.crop((left, top, left + side, top + side))


def _is_lossless_webp(encoded: bytes) -> bool:
    return encoded[8:12] == b"WEBP" and b"VP8L" in encoded[12:64]


_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error)


def _opened(encoded: bytes, where: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError as error:
        raise _damaged(where, ValueError("its format is not recognised")) from error
    except (*_ERRORS, Image.DecompressionBombError) as error:
        raise _damaged(where, error) from error


def _damaged(where: str, error: BaseException) -> ValueError:
    return ValueError(
        f"{where}: the image cannot be decoded ({first_line(error)}); copy the file again."
    )
