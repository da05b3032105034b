"""Goal: the runner of `make mutation` changes what it says, one thing at a time, and its own tests can be found."""

from __future__ import annotations

import ast
import random

from tests.mutation import FILES, TESTS, all_mutants
from tests.rules.source import PACKAGE, ROOT


def test_every_change_is_one_and_compiles() -> None:
    mutants = all_mutants()
    assert {mutant.file for mutant in mutants} == set(FILES)
    for mutant in random.Random(1).sample(mutants, 60):
        before = ast.unparse(ast.parse((PACKAGE / mutant.file).read_text(encoding="utf-8")))
        after = mutant.source()
        compile(after, mutant.file, "exec")
        assert after != before, mutant


def test_changes_of_one_file_differ() -> None:
    sources = [mutant.source() for mutant in all_mutants() if mutant.file == "files/record.py"]
    assert len(set(sources)) == len(sources)


def test_the_tests_that_must_notice_are_there() -> None:
    assert [place for place in TESTS if not (ROOT / place).exists()] == []
