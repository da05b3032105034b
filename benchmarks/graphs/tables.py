"""The figures of the graph benchmark as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.graphs.curves import targets
from benchmarks.report import table

Figures = dict[str, Any]


def spread(values: Sequence[float] | None, digits: int = 2) -> str:
    """Median and quartiles: 1.52 (1.49-1.56)."""
    return "-" if values is None else "{:,.{d}f} ({:,.{d}f}-{:,.{d}f})".format(*values, d=digits)


def curves(figures: Figures) -> str:
    """Every point: an engine at an effort."""
    rows = [[figures["name"], "k", "ef", "recall", "queries/s"]]
    for k, engines in figures["curves"].items():
        for name, curve in engines.items():
            points = zip(curve["ef"], curve["recall"], curve["qps"], strict=True)
            rows += [[name, k, str(ef), f"{recall:.4f}", f"{qps:,.0f}"] for ef, recall, qps in points]
    return table(rows)


def speeds(figures: Figures, mode: str) -> str:
    """Queries a second at the targets, and in brackets vecdb's ratio to that engine, a median of rounds."""
    columns = [(k, wanted) for k in figures["curves"] for wanted in targets(int(k))]
    title = {"batch": "in one call", "single": "one query a call"}[mode]
    rows = [[f"{figures['name']}, queries/s, {title}", *(f"k={k} at {wanted}" for k, wanted in columns)]]
    for name in next(iter(figures["curves"].values())):
        rows.append([name, *(speed(figures, name, k, wanted, mode) for k, wanted in columns)])
    rows.append(["vecdb to the best peer", *(to_best(figures, k, wanted, mode) for k, wanted in columns)])
    return table(rows)


def speed(figures: Figures, name: str, k: str, wanted: float, mode: str) -> str:
    at = figures["curves"][k][name]["at"].get(str(wanted), {})
    if mode not in at:
        return "-"
    found = figures["ratios"][k].get(f"{wanted} {mode}", {"ratios": {}})
    beside = f" [{found['bounds'][name]}{found['ratios'][name][0]:.2f}]" if name in found["ratios"] else ""
    return f"{'>=' if at['at_least'] else ''}{at[mode]:,.0f}{beside}"


def to_best(figures: Figures, k: str, wanted: float, mode: str) -> str:
    found = figures["ratios"][k].get(f"{wanted} {mode}")
    if found is None:
        return "-"
    best = found["best"]
    return f"{found['bounds'][best]}{spread(found['ratios'][best])} {best}"


def costs(figures: Figures) -> str:
    """Calls, threads and bytes of vecdb; a ratio of threads is how many times faster two are than one."""
    rows = [[f"{figures['name']}, vecdb", "median (quartiles)"]]
    labels = {
        "overhead_us": "a call beside its walk, us",
        "index_scaling": "two threads to one: index, half of the queries each",
        "collection_scaling": "two threads to one: Collection.search(threads=2)",
    }
    rows += [[label, spread(figures[key])] for key, label in labels.items() if key in figures]
    rows.append(["bytes a vector of the index", f"{figures['bytes']:.0f}"])
    rows.append(["d + 8m + 32", f"{figures['bytes_bound']:.0f}"])
    return table(rows)


def builds(figures: Figures) -> str:
    build = figures["build"]
    heading = f"{figures['name']}, build on {build['threads']} threads"
    rows = [[heading, "s", "vecdb is faster by"]]
    rows += [[name, spread(s), spread(build["ratios"].get(name))] for name, s in build["seconds"].items()]
    if "collection" in build:
        one = build["collection"]
        rows.append(["vecdb, first upsert to optimized (ratio: to hnswlib M16)", spread(one["seconds"]),
                     spread(one.get("ratio"))])  # fmt: skip
    return table(rows)


def growth(found: list[Figures]) -> str:
    rows = [["vecdb, photos, k=10", "us a query at 0.95", "at 0.99", "build, s", "build, us a row"]]
    for one in found:
        costs = [
            f"{'<=' if float(w) in one['at_least'] else ''}{us:,.0f}" if us else "-" for w, us in one["us"].items()
        ]
        rows.append([f"{one['rows']:,}", *costs, f"{one['build_s']:.1f}", f"{1e6 * one['build_s'] / one['rows']:.0f}"])
    return table(rows)


def report(figures: Figures) -> str:
    """All tables of one set of vectors."""
    parts = [curves(figures), *(speeds(figures, mode) for mode in figures["modes"]), costs(figures)]
    return "\n\n".join(["", *parts, *([builds(figures)] if "build" in figures else [])])
