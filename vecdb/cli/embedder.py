"""A small text embedder that needs no model: words and character n-grams, hashed and projected.

A word's vector is a sparse random projection (Achlioptas 2003; Li, Hastie and Church 2006) of the word itself and of
its character n-grams (as in fastText: Bojanowski et al. 2017), so that spellings and inflections are near each other.
A text is the sum of its words, weighted by log frequency and inverse document frequency, with the mean of the corpus
taken out (as in SIF: Arora, Liang and Ma 2017), at unit length. The same corpus gives the same vectors anywhere.
"""

from __future__ import annotations

import re

import numpy as np

from vecdb.types import F32, I64, U64

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")  # splits snake_case and CamelCase
WORD_MAX = 24  # characters of a word that count
WORDS_MAX = 400  # words of a text that count
GRAMS = (3, 4, 5)
NONZERO = 8  # components that one feature touches
WHOLE = 0.7  # weight of the word itself beside its n-grams
BLOCK = 512  # texts or words per step; bounds the memory


class HashingEmbedder:
    """fit() learns how common words are; embed() turns texts into vectors.

    dim    components of a vector
    seed   of the hash functions; other seeds give other, equally good spaces
    """

    def __init__(self, dim: int = 384, seed: int = 0) -> None:
        self.dim = dim
        self._seed = np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
        self._weights: dict[str, float] = {}
        self._unseen = 1.0
        self._mean: F32 = np.zeros(dim, np.float32)

    def fit(self, texts: list[str]) -> HashingEmbedder:
        """Learns inverse document frequencies and the mean of the corpus. Returns itself."""
        counts: dict[str, int] = {}
        for text in texts:
            for word in set(words_of(text)):
                counts[word] = counts.get(word, 0) + 1
        total = 1 + len(texts)
        self._weights = {word: float(np.log(total / (1 + count))) for word, count in counts.items()}
        self._unseen = float(np.log(total))
        self._mean[:] = 0.0
        sample = texts[:: max(1, len(texts) // 4096)]
        if sample:
            self._mean[:] = self.embed(sample).mean(axis=0)
        return self

    def embed(self, texts: list[str]) -> F32:
        """float32 (len(texts), dim), unit length; a text without words is a zero vector."""
        vocabulary: dict[str, int] = {}
        lists = [
            np.array([vocabulary.setdefault(word, len(vocabulary)) for word in words_of(text)], np.int64)
            for text in texts
        ]
        table = self._word_vectors(list(vocabulary))
        weights = np.array([self._weights.get(word, self._unseen) for word in vocabulary], np.float32)
        result = np.zeros((len(texts), self.dim), np.float32)
        for row, words in enumerate(lists):
            if words.size:
                unique, counts = np.unique(words, return_counts=True)
                result[row] = ((1.0 + np.log(counts)) * weights[unique]).astype(np.float32) @ table[unique]
        return unit(unit(result) - self._mean * (np.abs(result).sum(axis=1, keepdims=True) > 0))

    def _word_vectors(self, words: list[str]) -> F32:
        """float32 (len(words), dim), each at unit length."""
        table = np.zeros((len(words), self.dim), np.float32)
        for at in range(0, len(words), BLOCK):
            letters = letters_of(words[at : at + BLOCK])
            rows, features, weights = features_of(letters)
            table[at : at + BLOCK] = self._project(letters.shape[0], rows, features, weights)
        return unit(table)

    def _project(self, count: int, rows: I64, features: U64, weights: F32) -> F32:
        """Adds every feature at NONZERO components of its row, with signs; both are functions of the feature."""
        cells, values = [], []
        for n in range(NONZERO):
            mixed = mix(features ^ mix(np.full_like(features, n + 1) ^ self._seed))
            cells.append(rows * self.dim + (mixed % np.uint64(self.dim)).astype(np.int64))
            values.append(np.where(mixed >> np.uint64(63), weights, -weights))
        sums = np.bincount(np.concatenate(cells), np.concatenate(values), minlength=count * self.dim)
        return sums.astype(np.float32).reshape(count, self.dim)


def words_of(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)[:WORDS_MAX]]


def letters_of(words: list[str]) -> U64:
    """uint64 (words, WORD_MAX + 2): character codes between two marks, then zeros."""
    padded = np.zeros((len(words), WORD_MAX + 2), np.uint64)
    for row, word in enumerate(words):
        codes = f"<{word[:WORD_MAX]}>".encode("latin-1", "replace")
        padded[row, : len(codes)] = np.frombuffer(codes, np.uint8)
    return padded


def features_of(letters: U64) -> tuple[I64, U64, F32]:
    """(row, hash, weight) of each word and of each of its n-grams; the n-grams of a word weigh 1 together."""
    lengths = np.count_nonzero(letters, axis=1)
    multiplier = np.uint64(0x100000001B3)  # of FNV-1a
    rolling = np.zeros(letters.shape[0], np.uint64)
    for column in range(letters.shape[1]):
        rolling = np.where(letters[:, column] > 0, (rolling ^ letters[:, column]) * multiplier, rolling)
    rows, hashes = [np.arange(letters.shape[0])], [rolling]
    for size in GRAMS:
        grams = np.zeros((letters.shape[0], letters.shape[1] - size + 1), np.uint64)
        for offset in range(size):
            grams = (grams ^ letters[:, offset : offset + grams.shape[1]]) * multiplier
        present = np.arange(grams.shape[1]) <= (lengths - size)[:, None]
        rows.append(np.nonzero(present)[0])
        hashes.append(grams[present] + np.uint64(size))
    grams_of_row = np.bincount(np.concatenate(rows[1:]), minlength=letters.shape[0])
    row = np.concatenate(rows).astype(np.int64)
    weight = 1.0 / np.sqrt(np.maximum(grams_of_row, 1))[row]
    weight[: letters.shape[0]] = WHOLE
    return row, np.concatenate(hashes), weight.astype(np.float32)


def mix(values: U64) -> U64:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit depends on every other."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def unit(rows: F32) -> F32:
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    scale: F32 = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return rows * scale[:, None]
