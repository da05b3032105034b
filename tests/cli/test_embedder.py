"""The built-in embedder: the same everywhere, and near for texts that are near."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.rules.source import ROOT
from vecdb.cli.embedder import HashingEmbedder, letters_of, unit, words_of

TEXTS = [
    "Return a deep copy of the object.",
    "Returns deep copies of objects.",
    "Open a TCP socket and connect to the host.",
    "Connect a socket to a remote host over TCP.",
    "Parse a date in ISO format from a string.",
    "Multiply two matrices.",
    "Write the rows of a table to a CSV file.",
    "Send a signal to a child process.",
]

PROGRAM = """
from vecdb.cli.embedder import HashingEmbedder
texts = ["read a file", "write a file", "deep copy"]
print(HashingEmbedder(dim=64).fit(texts).embed(texts).tobytes().hex())
"""


@pytest.fixture(scope="module")
def embedder() -> HashingEmbedder:
    return HashingEmbedder().fit(TEXTS)


def test_shape_type_and_length(embedder: HashingEmbedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize(("one", "other"), [(0, 1), (2, 3)])
def test_near_duplicates_are_nearest(embedder: HashingEmbedder, one: int, other: int) -> None:
    vectors = embedder.embed(TEXTS)
    similar = vectors @ vectors[one]
    similar[one] = -1.0
    assert int(similar.argmax()) == other
    assert similar[other] > 0.2 + np.sort(similar)[-2]


def test_a_query_finds_its_text(embedder: HashingEmbedder) -> None:
    vectors = embedder.embed(TEXTS)
    for query, wanted in (("parsing dates", 4), ("matrix multiplication", 5), ("csv", 6), ("processes and signals", 7)):
        assert int((vectors @ embedder.embed([query])[0]).argmax()) == wanted, query


def test_same_in_another_process() -> None:
    """Neither the order of hashing in Python nor the number of texts in a call changes a vector."""
    runs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_a_text_has_one_vector_however_it_is_batched(embedder: HashingEmbedder) -> None:
    together = embedder.embed(TEXTS * 200)
    alone = np.vstack([embedder.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(together[: len(TEXTS)], alone, atol=1e-6)


def test_seed_gives_another_space() -> None:
    assert not np.allclose(HashingEmbedder(seed=1).embed(["copy"]), HashingEmbedder(seed=2).embed(["copy"]))


@pytest.mark.parametrize("text", ["", "   ", "——", "\x00"])
def test_text_without_words_is_a_zero_vector(embedder: HashingEmbedder, text: str) -> None:
    assert not embedder.embed([text]).any()


def test_fit_on_nothing() -> None:
    assert HashingEmbedder(dim=16).fit([]).embed([]).shape == (0, 16)


def test_words() -> None:
    assert words_of("HTTPServer.get_file2 parseXML") == ["http", "server", "get", "file", "2", "parse", "xml"]


def test_letters_have_marks_at_both_ends() -> None:
    assert bytes(letters_of(["ab"])[0].astype(np.uint8)).rstrip(b"\0") == b"<ab>"


def test_unit_leaves_zero_rows() -> None:
    rows = unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]], atol=1e-7)
