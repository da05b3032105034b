"""Every place in the package that calls the disk, found in the sources: new ones are known as soon as they are written.

A site is (file, function, method). Statically, it is a call of a method of `Disk` on something called `disk`, or of a
method of `File` that nothing else has, or on something called `file` or `handle`. While a test runs, it is the
innermost frame of the package.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from types import FrameType

from tests.rules.source import PACKAGE, SOURCES
from vecdb.files.disk import Disk, File

DISK_METHODS = {name for name in vars(Disk) if not name.startswith("_")} - {"reach"}
FILE_METHODS = {name for name in vars(File) if not name.startswith("_")} - {"close"}
UNMISTAKABLE = {"read_at", "write_at", "truncate"}  # other things have these names never, and "sync" often
FILE_NAMES = ("file", "handle")
IMPLEMENTATIONS = ("LocalDisk", "LocalFile", "Disk", "File")
WITHOUT_NAME = re.compile(r"\.<locals>\.<\w+>")  # generators and comprehensions belong to their function
WATCHING = ("_check_retired", "_epoch", "_check_mode", "_check_catalog_modes")  # calls of the tests


@dataclass(frozen=True, order=True)
class Site:
    file: str
    function: str
    method: str

    def __str__(self) -> str:
        return f"{self.file} {self.function}: {self.method}"


def _receiver(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


class _Finder(ast.NodeVisitor):
    def __init__(self, file: str) -> None:
        self.file, self.scope = file, list[str]()
        self.found: set[Site] = set()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if node.name not in IMPLEMENTATIONS:
            self._inside(node, [node.name])

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._inside(node, [node.name, "<locals>"])

    def _inside(self, node: ast.ClassDef | ast.FunctionDef, names: list[str]) -> None:
        self.scope += names
        self.generic_visit(node)
        del self.scope[-len(names) :]

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            receiver, method = _receiver(node.func.value), node.func.attr
            is_disk = receiver == "disk" and method in DISK_METHODS
            is_file = method in UNMISTAKABLE or (receiver in FILE_NAMES and method in FILE_METHODS)
            if is_disk or is_file:
                self.found.add(Site(self.file, ".".join(self.scope[:-1]), method))
        self.generic_visit(node)


def written_sites() -> set[Site]:
    """What the sources say."""
    found: set[Site] = set()
    for path in SOURCES:
        finder = _Finder(str(path.relative_to(PACKAGE)))
        finder.visit(ast.parse(path.read_text(encoding="utf-8")))
        found |= finder.found
    return found


def calling_site(method: str) -> Site | None:
    """The site that is calling the disk now; None for a call of the tests, or of a disk that watches."""
    frame: FrameType | None = sys._getframe(1)
    package = str(PACKAGE) + "/"
    while frame is not None:
        code = frame.f_code
        if code.co_name in WATCHING:
            return None
        if code.co_filename.startswith(package):
            if code.co_filename == f"{package}files/disk.py" and code.co_qualname.partition(".")[0] in IMPLEMENTATIONS:
                return None
            function = WITHOUT_NAME.sub("", code.co_qualname)
            return Site(code.co_filename[len(package) :], function, method)
        frame = frame.f_back
    return None
