"""zvec walking its 8-bit codes, what it finds refined by float32."""

from __future__ import annotations

import zvec

from benchmarks.engines import zvec_engine


class Adapter(zvec_engine.Adapter):
    quantiser = zvec.QuantizeType.INT8
    refined = True
