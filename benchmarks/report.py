"""Figures of engines as tables that a terminal and a text file both show well."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

BETTER_OF = ("zvec", "zvec-int8", "qdrant-edge")

Figures = dict[str, Any]

ROWS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("records", lambda f: f"{f['records']:,}"),
    ("ingest, records/s", lambda f: f"{f['records'] / f['ingest_s']:,.0f}"),
    ("optimize, s", lambda f: f"{f['optimize_s']:.1f}"),
    ("disk, MB", lambda f: f"{f['disk_bytes'] / 1e6:,.0f}"),
    ("memory of its own, MB", lambda f: f"{f['start']['anonymous_bytes'] / 1e6:,.0f}"),
    ("memory mapped from files, MB", lambda f: f"{f['start']['mapped_bytes'] / 1e6:,.0f}"),
    ("start to first correct result, s", lambda f: f"{f['start']['first_s']:.2f}"),
    ("start to first result of the index, s", lambda f: f"{f['start']['indexed_s']:.2f}"),
    ("p99 idle, ms", lambda f: mixed(f, "idle")),
    ("p99 while records arrive, ms", lambda f: mixed(f, "busy")),
    ("ratio", lambda f: ratio(f)),
)


def mixed(figures: Figures, when: str) -> str:
    return f"{figures['mixed'][when]['p99_ms']:.2f}" if "mixed" in figures else "-"


def ratio(figures: Figures) -> str:
    if "mixed" not in figures:
        return "-"
    return f"{figures['mixed']['busy']['p99_ms'] / figures['mixed']['idle']['p99_ms']:.1f}"


def table(rows: list[list[str]]) -> str:
    """Columns as wide as they need; the first is left-aligned, the others right. The first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def overview(engines: dict[str, Figures]) -> str:
    heading = ["", *(f"{name} {figures['version']}" for name, figures in engines.items())]
    return table([heading, *([title, *(cell(figures) for figures in engines.values())] for title, cell in ROWS)])


def searches(name: str, figures: Figures) -> str:
    heading = [name, "share", "recall", "p50 ms", "p99 ms", "queries/s", "cold ms", "effort and plan"]
    rows = [
        [
            title,
            f"{100 * one['share']:.2f}%",
            f"{one['recall']:.4f}",
            f"{one['p50_ms']:.3f}",
            f"{one['p99_ms']:.3f}",
            f"{one['qps']:,.0f}",
            f"{one['cold_ms']:.2f}",
            one["plan"],
        ]
        for title, one in figures["filters"].items()
    ]
    return table([heading, *rows])


def comparison(engines: dict[str, Figures]) -> str:
    """Queries a second side by side, and vecdb's ratio to the better of the two nearest engines in each row."""
    ours, others = engines["vecdb"], [name for name in BETTER_OF if name in engines]
    rows, ratios = [["queries/s", *engines, "ratio"]], []
    for title in ours["filters"]:
        speeds = {name: figures["filters"][title]["qps"] for name, figures in engines.items()}
        cells = [f"{speed:,.0f}" for speed in speeds.values()]
        if others:
            ratios.append(speeds["vecdb"] / max(speeds[name] for name in others))
        rows.append([title, *cells, f"{ratios[-1]:.2f}" if others else ""])
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        rows.append(
            [f"geometric mean, against the best of {' and '.join(others)}", *[""] * len(engines), f"{mean:.2f}"]
        )
    return table(rows)


def report(engines: dict[str, Figures]) -> str:
    parts = [overview(engines), *(searches(name, figures) for name, figures in engines.items())]
    if "vecdb" in engines and len(engines) > 1:
        parts.append(comparison(engines))
    return "\n\n".join(["", *parts])
