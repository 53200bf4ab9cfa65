"""Sizes that grow with the rows, and what is known of a tensor before a graph is run.

Shapes: B rows, L list values.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

DEEPEST = 8  # axes of a tensor


class Size(NamedTuple):
    """`fixed` + `rows` * B + `values` * L."""

    fixed: int = 0
    rows: int = 0
    values: int = 0

    def plus(self, other: "Size") -> "Size":
        """Both together."""
        return Size(self.fixed + other.fixed, self.rows + other.rows, self.values + other.values)

    def within(self, most: "Size") -> bool:
        """Whether no part of it is larger."""
        return self.fixed <= most.fixed and self.rows <= most.rows and self.values <= most.values

    @property
    def grows(self) -> bool:
        """Whether it depends on how many rows or list values there are."""
        return bool(self.rows or self.values)

    def times(self, other: "Size") -> "Size":
        """The product.

        Raises:
            ValueError: both grow.
        """
        if not other.grows:
            one, factor = self, other.fixed
        elif not self.grows:
            one, factor = other, self.fixed
        else:
            raise ValueError("grows faster than the rows")
        return Size(one.fixed * factor, one.rows * factor, one.values * factor)


Shape = tuple[Size, ...]
ONE = Size(1)


class Known(NamedTuple):
    """What is known of a tensor without running anything.

    type: of ONNX. sizes: the whole numbers that a vector (n,) holds, where they are constants or follow from the rows.
    constant: the content, where the graph itself holds it.
    """

    type: int
    shape: Shape
    sizes: Shape | None = None
    constant: npt.NDArray[Any] | None = None

    @property
    def numbers(self) -> Size:
        """How many there are."""
        return product(self.shape)

    @classmethod
    def of(cls, type: int, shape: Sequence[int], constant: npt.NDArray[Any] | None = None) -> Self:
        """A tensor of a fixed shape."""
        sizes = None
        if constant is not None and constant.dtype == np.int64 and constant.ndim == 1:
            sizes = tuple(Size(int(each)) for each in constant[: DEEPEST + 1])
        return cls(type, tuple(Size(each) for each in shape), sizes, constant)


def product(sizes: Sequence[Size]) -> Size:
    """How many numbers a tensor of that shape has.

    Raises:
        ValueError: more than one axis grows.
    """
    found = ONE
    for size in sizes:
        found = found.times(size)
    return found
