"""The measured costs of a database: kept in the cache directory, measured when it is idle, corrected by its queries."""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vecdb.files.kept import processor, read_facts, write_facts
from vecdb.planner.cost import NOT_MEASURED, Costs, Line
from vecdb.planner.measured import (
    NAMES,
    Walks,
    corrected,
    lines_from_dict,
    lines_to_dict,
    scaled,
    walks_from_dict,
    walks_to_dict,
)
from vecdb.types import Arm

log = logging.getLogger("vecdb")
OBSERVED = 64  # queries of one arm after which its cost is corrected
CORRECTION_MIN = 0.08  # below this plans, and what they have learned of their escalations, stay; medians vary by 5 %
LINE_OF = {
    Arm.EXACT: "exact",
    Arm.GATHER: "gather",
    Arm.EXCERPT: "excerpt",
    Arm.SCAN: "scan",
    Arm.LISTS: "lists",
    Arm.GRAPH: "walk",
}


class Place(NamedTuple):
    """What costs depend on besides the machine: `size` is the power of two of the rows, for a hop waits for memory."""

    dim: int
    dtype: str
    flat_bits: int
    graph_bits: int
    m: int
    size: int
    lists: tuple[str, int, int] | None = None  # kind, bits and number

    def __str__(self) -> str:
        lists = "" if self.lists is None else ", {2} lists of {0} with {1} bits".format(*self.lists)
        return (
            f"{processor()}; {self.dim} x {self.dtype}, scan of {self.flat_bits} bits, graph of {self.graph_bits} bits "
            f"and m {self.m}{lists}, 2^{self.size} rows"
        )

    def lends(self, other: Place) -> set[str]:
        """The lines that hold for another place too, but for its size."""
        if (self.dim, self.dtype) != (other.dim, other.dtype):
            return set()
        names = {"exact"}
        if self.flat_bits == other.flat_bits and self.lists is None and other.lists is None:
            names |= {"scan"}
        if self.graph_bits and (self.graph_bits, self.m) == (other.graph_bits, other.m):
            names |= {"gather", "excerpt", "walk"}
        return names


@dataclass(slots=True)
class Measured:
    """Lines of one place, and what queries have told of them since. Racing threads may lose a query."""

    lines: dict[str, Line]
    when: str
    scales: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in NAMES})
    observed: int = 0

    def scaled_lines(self) -> dict[str, Line]:
        return {name: scaled(line, self.scales.get(name, 1.0)) for name, line in self.lines.items()}

    @property
    def source(self) -> str:
        corrections = f", corrected by {self.observed:,} queries" if self.observed else ""
        return f"measured on this machine, {self.when}{corrections}"

    def observe(self, arm: Arm, ratio: float) -> bool:
        """Takes what a query took over what was predicted; whether the costs have changed by it."""
        name = LINE_OF.get(arm)
        if name is None or name not in self.lines or ratio <= 0.0:
            return False
        ratios = self.ratios[name]
        ratios.append(ratio)
        if len(ratios) < OBSERVED:
            return False
        self.ratios[name] = []
        self.observed += len(ratios)
        before = self.scales.get(name, 1.0)
        scale = corrected(before, ratios)
        if abs(scale / before - 1) < CORRECTION_MIN:
            return False
        self.scales[name] = scale
        return True


class CostBook:
    """Measured costs by place. `version` grows when one changes, and plans that were made before are made anew."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.places: dict[Place, Measured | None] = {}
        self.version = 0

    def find(self, place: Place) -> Measured | None:
        """What is known of it; looks into the cache directory once."""
        if place not in self.places:
            with self.lock:
                if place not in self.places:
                    self.places[place] = _kept(place)
        return self.places[place]

    def put(self, place: Place, lines: dict[str, Line], when: str) -> None:
        """What was measured; kept for other processes too."""
        with self.lock:
            self.places[place] = Measured(lines, when)
            self.version += 1
        directory = cache_directory()
        if directory is not None:
            write_facts(directory, str(place), {"when": when, "lines": lines_to_dict(lines)})

    def costs(self, place: Place | None, walks: Walks | None) -> Costs:
        """For the planner; usual values where nothing was measured."""
        measured = None if place is None else self.find(place) or self._lent(place)
        if measured is None:
            return NOT_MEASURED if walks is None else Costs(filtered=walks.filtered, far=walks.far)
        lines, source = measured.scaled_lines(), measured.source
        return Costs(lines, source=source) if walks is None else Costs(lines, walks.filtered, walks.far, source)

    def _lent(self, place: Place) -> Measured | None:
        """What the segment nearest in size tells of one that was not measured: one that grows, or is small."""
        known = [(other, measured) for other, measured in list(self.places.items()) if measured is not None]
        known = [(other, measured) for other, measured in known if other.lends(place)]
        if not known:
            return None
        other, measured = min(known, key=lambda each: (abs(each[0].size - place.size), str(each[0])))
        lent = other.lends(place)
        return Measured(
            {name: line for name, line in measured.scaled_lines().items() if name in lent},
            f"{measured.when}, with 2^{other.size} rows",
        )

    def observe(self, measured: Measured, arm: Arm, ratio: float) -> None:
        if measured.observe(arm, ratio):
            with self.lock:
                self.version += 1

    def told(self) -> dict[str, Any]:
        """By place, in words: when it was measured, microseconds and nanoseconds by arm, and their corrections."""
        found = {}
        for place, measured in list(self.places.items()):
            if measured is not None:
                lines = lines_to_dict(measured.scaled_lines())
                found[str(place)] = {"when": measured.when, "lines": lines, "observed": measured.observed}
        return found


def cache_directory() -> Path | None:
    """That of the compiled kernels, whose costs these are: it is the user's own, and another for other kernels."""
    gate = sys.modules.get("vecdb.kernels.jit")
    found: Path | None = None if gate is None else gate.CACHE
    return found


def _kept(place: Place) -> Measured | None:
    directory = cache_directory()
    facts = None if directory is None else read_facts(directory, str(place))
    if facts is None:
        return None
    try:
        when, lines = facts["when"], lines_from_dict(facts["lines"])
        if not isinstance(when, str) or not when.isascii() or not when.isprintable() or len(when) > 40:
            raise ValueError("it does not say when")
    except (TypeError, KeyError, ValueError) as error:
        log.warning("the kept costs of %s are not believed (%s); they are measured again", place, error)
        return None
    return Measured(lines, when)


def read_walks(parameters: Any) -> Walks | None:
    """How walks go, as it is kept with a graph; None for a graph of which it is not known."""
    stored = parameters.get("walks")
    if stored is None:
        return None
    try:
        return walks_from_dict(stored)
    except ValueError as error:
        log.warning("what is kept of the walks of a graph is not believed: %s", error)
        return None


def stored_walks(walks: Walks) -> dict[str, Any]:
    return {"walks": walks_to_dict(walks)}
