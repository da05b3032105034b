"""How the commands print: colours and moving bars in a terminal, plain lines everywhere else."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable
from types import TracebackType

BAR = 28  # cells of a progress bar
WIDTH_PIPED = 110
WIDTH_MAX = 140
SECOND_PER_FRAME = 0.05

BOLD, DIM, GREEN, CYAN = "1", "2", "32", "36"


def width() -> int:
    """Columns that a line may take."""
    if not sys.stdout.isatty():
        return WIDTH_PIPED
    return min(WIDTH_MAX, shutil.get_terminal_size().columns)


def paint(text: str, code: str) -> str:
    """`text` in a colour where stdout is a terminal that wants colours (https://no-color.org), else unchanged."""
    wanted = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return f"\x1b[{code}m{text}\x1b[0m" if wanted else text


def clip(text: str, columns: int) -> str:
    """`text` in exactly `columns` columns."""
    text = text if len(text) <= columns else text[: max(0, columns - 1)] + "…"
    return text.ljust(columns)


def say(text: str = "") -> None:
    print(text, flush=True)


def heading(text: str) -> None:
    say()
    say(paint(text, BOLD))


def fact(label: str, text: str, seconds: float | None = None) -> None:
    """One line: what was done, what came of it, how long it took."""
    took = "" if seconds is None else duration(seconds)
    room = max(20, min(width(), WIDTH_PIPED) - 26)
    say(f"  {paint(label.ljust(10), CYAN)} {text.ljust(room)} {paint(took.rjust(9), DIM)}".rstrip())


def table(rows: Iterable[tuple[str, ...]], indent: int = 2) -> None:
    """Columns as wide as they need; the first is left-aligned, the others right. The first row is the heading."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for n, row in enumerate(cells):
        line = "   ".join(
            [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        say(" " * indent + (paint(line, DIM) if n == 0 else line))


def duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.2f} ms"


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class Bar:
    """A progress bar on stderr: it moves in a terminal; elsewhere it prints a line at each quarter.

    Call it with (done, total), as every `progress=` of vecdb does.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.moving = sys.stderr.isatty()
        self.drawn = 0.0
        self.quarter = 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.moving:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, done: int, total: int) -> None:
        share = min(1.0, done / total) if total else 1.0
        if self.moving:
            self.draw(share, done, total)
        elif int(share * 4) > self.quarter:
            self.quarter = int(share * 4)
            print(f"  {self.label} {share:.0%}", file=sys.stderr, flush=True)

    def draw(self, share: float, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.drawn < SECOND_PER_FRAME and done < total:
            return
        self.drawn = now
        full = int(share * BAR)
        line = f"  {self.label.ljust(10)} {'█' * full}{'░' * (BAR - full)} {share:4.0%}  {done:,} of {total:,}"
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
