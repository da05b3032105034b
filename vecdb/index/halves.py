"""Values kept as float16 and one unit: half the bytes, and neither very large nor very small ones are lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from vecdb.index.base import expect, frozen
from vecdb.types import F32, AnyArray

LARGEST_EXPONENT = 15  # the largest value is kept as one below 2^15, half of what a float16 may be
UNIT_MIN = 2.0**-126  # the smallest that a float32 holds in full


@dataclass(frozen=True, slots=True)
class Halves:
    """stored float16, any shape; a value is unit * stored. unit: a power of two, so that no bit is lost to it."""

    stored: AnyArray
    unit: float

    @classmethod
    def of(cls, values: F32) -> Self:
        """Rounded to 11 bits, those below 2^-29 of the largest to fewer."""
        largest = float(np.abs(values).max(initial=0.0))
        unit = max(UNIT_MIN, math.ldexp(1.0, math.frexp(largest)[1] - LARGEST_EXPONENT)) if largest else 1.0
        return cls(frozen((values / np.float32(unit)).astype(np.float16)), unit)

    @property
    def bits(self) -> AnyArray:
        """uint16, as kernels take them."""
        return frozen(self.stored.view(np.uint16))

    def values(self) -> F32:
        """float32, a new array."""
        return frozen(self.stored.astype(np.float32) * np.float32(self.unit))

    @classmethod
    def read(cls, arrays: Mapping[str, AnyArray], name: str, shape: tuple[int, ...], units: Any) -> Self:
        """What was stored as arrays[name] and units[name]; ValueError says what does not fit."""
        unit = float(units[name]) if isinstance(units, Mapping) and name in units else math.nan
        if not UNIT_MIN <= unit < math.inf:
            raise ValueError(f"the unit of array {name!r} is missing")
        return cls(expect(arrays, name, np.float16, shape), unit)
