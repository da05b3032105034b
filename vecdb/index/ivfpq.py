"""IVFPQ: lists as of IVF, scanned by the codes of a product quantiser that learned from the rows themselves."""

from __future__ import annotations

from typing import ClassVar

from vecdb.index.ivf import IvfIndex
from vecdb.index.lists import ListCodes
from vecdb.index.products import Products


class IvfPqIndex(IvfIndex):
    """See vecdb.options.IVFPQ."""

    kind: ClassVar[str] = "ivfpq"
    coder: ClassVar[type[ListCodes]] = Products
