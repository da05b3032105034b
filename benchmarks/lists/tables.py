"""The figures of the benchmark of inverted lists as tables."""

from __future__ import annotations

from typing import Any

from benchmarks.graphs import tables
from benchmarks.graphs.tables import spread
from benchmarks.report import table

Figures = dict[str, Any]
TITLES = {"batch": "in one call", "single": "one query a call"}


def recalls_of(figures: Figures, k: str, mode: str) -> list[str]:
    """The recalls that some engine reaches, rising."""
    found = {at for curve in figures["curves"][k].values() for at, speeds in curve["at"].items() if mode in speeds}
    return sorted(found, key=float)


def speeds(figures: Figures, k: str, mode: str) -> str:
    """Queries a second at the recalls that are looked at, and in brackets how much faster the first engine is."""
    columns = recalls_of(figures, k, mode)
    first = next(iter(figures["curves"][k]))
    rows = [[f"{figures['name']}, k={k}, queries/s, {TITLES[mode]}", *(f"at {wanted}" for wanted in columns)]]
    for name, curve in figures["curves"][k].items():
        row = [name]
        for wanted in columns:
            at, beside = curve["at"].get(wanted, {}), to(figures, k, mode, wanted, first, name)
            bound = ">=" if at.get("at_least") else ""
            row.append(f"{bound}{at[mode]:,.0f}{f' [{beside}]' if beside else ''}" if mode in at else "-")
        rows.append(row)
    return table(rows)


def to(figures: Figures, k: str, mode: str, wanted: str, ours: str, other: str) -> str:
    found = figures["ratios"][k].get(ours, {}).get(f"{wanted} {mode}", {"ratios": {}})
    return f"{found['bounds'][other]}{found['ratios'][other][0]:.2f}" if other in found["ratios"] else ""


def families(figures: Figures, k: str, mode: str) -> str:
    """How much faster each of ours is than the fastest of each family of the others, medians of rounds (quartiles)."""
    ours = list(figures["ratios"][k])
    rows = [[f"{figures['name']}, k={k}, {TITLES[mode]}: ratio to the best of", "at", *ours]]
    for family in dict.fromkeys(family for name, family in figures["families"].items() if name not in ours):
        for wanted in recalls_of(figures, k, mode):
            cells = [against(figures, k, mode, wanted, name, family) for name in ours]
            if set(cells) != {"-"}:
                rows.append([family, wanted, *cells])
    return table(rows)


def best_of(figures: Figures, k: str, mode: str, wanted: str, family: str) -> str | None:
    """The fastest engine of a family at a recall."""
    curves = figures["curves"][k]
    found = {
        name: curve["at"][wanted][mode]
        for name, curve in curves.items()
        if figures["families"][name] == family and mode in curve["at"].get(wanted, {})
    }
    return max(found, key=lambda name: found[name]) if found else None


def against(figures: Figures, k: str, mode: str, wanted: str, ours: str, family: str) -> str:
    best = best_of(figures, k, mode, wanted, family)
    at = figures["ratios"][k][ours].get(f"{wanted} {mode}", {"ratios": {}})
    return f"{at['bounds'][best]}{spread(at['ratios'][best])}" if best in at["ratios"] else "-"


def memory(figures: Figures) -> str:
    """Bytes of a vector in memory, and the most that is found with them."""
    k = next(iter(figures["curves"]), None)
    rows = [[f"{figures['name']}, float32 not counted", "bytes a vector", *(["recall at most"] if k else [])]]
    for name, size in figures["bytes"].items():
        most = [f"{max(figures['curves'][k][name]['recall']):.4f}"] if k else []
        rows.append([name, f"{size:.0f}", *most])
    return table(rows)


def exact(figures: Figures) -> str:
    flat = figures["flat"]
    rows = [[f"{figures['name']}, exact, k={flat['k']}", "recall", "us alone", "ratio", "us in batches", "ratio"]]
    for name, found in flat["recall"].items():
        cells = []
        for mode in ("single", "batch"):
            cells += [f"{flat['us'][mode][name]:,.0f}", spread(flat["ratios"][mode].get(name))]
        rows.append([name, f"{found:.5f}", *cells])
    return table(rows)


def training(figures: Figures) -> str:
    build = figures["build"]
    heading = f"{figures['name']}, {build['nlist']} lists, {build['threads']} threads"
    rows = [[heading, "training, s", "ours takes", "training and adding, s", "ours takes", "objective"]]
    for name, stages in build["seconds"].items():
        cells = []
        for stage in ("training alone", "whole"):
            cells += [spread(stages[stage]), spread(build["ratios"].get(name, {}).get(stage))]
        rows.append([name, *cells, f"{build['objective'][name]:.6g}"])
    return table(rows)


def drift(found: Figures) -> str:
    old, new = found["rows"]
    heading = f"{old:,} rows of some sections, then {new:,} of the others; nprobe {found['nprobe']} of {found['lists']}"
    rows = [[heading, "recall", "of queries about the new", "queries/s", "error", "largest list"]]
    for name, one in found["states"].items():
        about = "-" if one["recall_new"] is None else f"{one['recall_new']:.4f}"
        sizes = [f"{one['qps']:,.0f}", f"{one['error']:.4g}", f"{one['largest']:.1f}"]
        rows.append([name, f"{one['recall']:.4f}", about, *sizes])
    return f"{table(rows)}\nretrained: {found['retrained'] or 'no'}"


def growth(found: list[Figures]) -> str:
    """Microseconds a query of lists and graph, in one call and alone."""
    wanted = sorted(
        {at for one in found for kind in ("ivf", "hnsw") for at in one[kind] if at != "recall_most"}, key=float
    )
    rows = [["rows, k=10", *(f"{kind} us at {at}" for at in wanted for kind in ("lists", "graph", "ratio"))]]
    for one in found:
        cells = []
        for at in wanted:
            cells += [cost(one[kind].get(at)) for kind in ("ivf", "hnsw")]
            cells.append(spread(one["lists_to_graph"].get(at)))
        rows.append([f"{one['rows']:,}", *cells])
    return table(rows)


def large(found: Figures) -> str:
    speeds = [f"us at {at}" for at in found["us"]]
    rows = [
        ["rows, k=10", "lists", "bytes a vector", "of float16 on the disk", "build, s", *speeds],
        [
            f"{found['rows']:,}", f"{found['nlist']:,}", f"{found['bytes']:.1f}", str(found["vector_bytes"]),
            f"{found['build_seconds']:,.0f}", *(f"{us:,.0f}" for us in found["us"].values()),
        ],
    ]  # fmt: skip
    reached = ", ".join(f"{recall:.4f} of {n}" for n, recall in zip(found["nprobe"], found["recall"], strict=True))
    return f"{table(rows)}\nrecall by lists scanned: {reached}"


def cost(at: Figures | None) -> str:
    if at is None:
        return "-"
    alone = f", {at['single']:,.0f} alone" if "single" in at and at["single"] == at["single"] else ""
    return f"{'<=' if at['at_most'] else ''}{at['batch']:,.0f}{alone}"


def cold(found: Figures) -> str:
    rows = [[f"float32 file {found['float32_bytes'] / 1e6:,.0f} MB", *found["indexes"]]]
    labels = {
        "allowance": ("allowed (RLIMIT_DATA), MB", 1e6, ",.0f"),
        "counted": ("of that reserved, touched or not, MB", 1e6, ",.0f"),
        "anonymous": ("anonymous memory at the end, MB", 1e6, ",.0f"),
        "file_backed": ("pages of mapped files, MB", 1e6, ",.0f"),
        "peak": ("most at once, files included, MB", 1e6, ",.0f"),
        "first_ms": ("first query, ms", 1, ",.1f"),
        "cold_ms": ("next queries while pages come, ms", 1, ",.2f"),
        "warm_ms": ("the same again, ms", 1, ",.2f"),
        "recall": ("recall", 1, ".4f"),
    }
    for key, (title, unit, form) in labels.items():
        rows.append([title, *(format(one[key] / unit, form) for one in found["indexes"].values())])
    rows.append(["plan", *(one["plan"] for one in found["indexes"].values())])
    rows.append(["float32 file fits into the allowance", *(str(one["fits"]) for one in found["indexes"].values())])
    return table(rows)


def report(figures: Figures) -> str:
    """All tables of one set of vectors."""
    parts = [""]
    if figures["curves"]:
        parts.append(tables.curves(figures))
        for k in figures["curves"]:
            for mode in figures["modes"]:
                parts += [speeds(figures, k, mode), families(figures, k, mode)]
    for key, write in (("bytes", memory), ("flat", exact), ("build", training)):
        if key in figures:
            parts.append(write(figures))
    return "\n\n".join(parts)
