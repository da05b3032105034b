"""Which strings hold a text, or a match of an RE2 expression: by pyarrow, which is imported on first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.types import I64, U8, Search


def search_table(data: U8, offsets: I64, probe: Search) -> NDArray[np.bool_]:
    """For each string of a table (UTF-8, see `string_table`), whether it matches. Copies nothing."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return _search(pa.Array.from_buffers(pa.large_utf8(), len(offsets) - 1, buffers), probe)


def search_list(strings: Sequence[str], probe: Search) -> NDArray[np.bool_]:
    """For each of some strings, whether it matches."""
    import pyarrow as pa

    return _search(pa.array(strings, pa.large_utf8()), probe)


def _search(strings: Any, probe: Search) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    match = pc.match_substring_regex if probe.regex else pc.match_substring
    return np.asarray(match(strings, probe.pattern).to_numpy(zero_copy_only=False), np.bool_)
