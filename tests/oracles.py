"""What the kernels must return, in plain NumPy. Imports nothing of vecdb, so that it cannot share a mistake with it."""

from __future__ import annotations

import numpy as np

COSINE, DOT, L2 = 0, 1, 2


def inverse_norms(vectors):
    norms = np.sqrt((vectors.astype(np.float64) ** 2).sum(1))
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0).astype(np.float32)


def distances(metric, vectors, query):
    """float32 (n,), by the definitions, in float64."""
    rows, wide = vectors.astype(np.float64), query.astype(np.float64)
    if metric == L2:
        return ((rows - wide) ** 2).sum(1).astype(np.float32)
    products = (rows * wide).sum(1)
    if metric == DOT:
        return (1.0 - products).astype(np.float32)
    lengths = np.sqrt((rows**2).sum(1)) * np.sqrt((wide**2).sum())
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    result = 1.0 - cosines
    result[result < 1e-14] = 0.0
    return result.astype(np.float32)


def nearest(metric, vectors, queries, k, allowed=None):
    """rows int32 (q, k), distances float32 (q, k), by (distance, row); `allowed` is a bool mask or None."""
    rows = np.full((len(queries), k), -1, np.int32)
    found = np.full((len(queries), k), np.inf, np.float32)
    candidates = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    for i, query in enumerate(queries):
        scored = distances(metric, vectors[candidates], query)
        order = np.lexsort((candidates, scored))[:k]
        rows[i, : len(order)], found[i, : len(order)] = candidates[order], scored[order]
    return rows, found


def recall(got, exact):
    """Share of the k nearest that were found; ties count as found. Distances float32 (q, k), inf where missing."""
    wanted = np.isfinite(exact)
    if not wanted.any():
        return 1.0
    worst = np.where(wanted, exact, -np.inf).max(1, keepdims=True)
    near = got <= worst + 1e-6 * np.abs(worst) + 1e-7
    return (np.isfinite(got) & near).sum() / wanted.sum()


def block_dots(levels, query):
    return levels.astype(np.int64) @ query.astype(np.int64)


def pack_blocks(levels, bits):
    """uint8 (n, dim) levels -> uint8 (blocks, bytes): 32 rows x 4 bytes; slot s of byte j is dimension 4s + j."""
    slots = 8 // bits
    rows, dim = levels.shape
    padded = np.zeros((-(-rows // 32) * 32, -(-dim // (4 * slots)) * 4 * slots), np.uint8)
    padded[:rows, :dim] = levels
    parts = padded.reshape(-1, 32, padded.shape[1] // (4 * slots), slots, 4)
    joined = np.zeros((len(parts), 32, parts.shape[2], 4), np.uint8)
    for slot in range(slots):
        joined |= parts[:, :, :, slot] << np.uint8(slot * bits)
    return np.ascontiguousarray(joined.transpose(0, 2, 1, 3)).reshape(len(joined), -1)


def clustered(rows, dim, seed=0, duplicates=0.05, clusters=40):
    """float32 (rows, dim): clusters of differing density, a share of exact duplicates, and two zero vectors."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    vectors = centres[rng.integers(0, clusters, rows)] + rng.uniform(0.1, 0.8, (rows, 1)) * rng.standard_normal(
        (rows, dim)
    )
    vectors = vectors.astype(np.float32)
    if rows > 20:
        copies = rng.integers(0, rows, int(rows * duplicates))
        vectors[rng.permutation(rows)[: len(copies)]] = vectors[copies]
        vectors[rng.integers(0, rows, 2)] = 0
    return vectors


def reached(graph):
    """bool (n,): rows that links from the entry lead to, and those that follow such a row as its twins."""
    seen = reachable(graph.links, graph.entry)
    for row in np.flatnonzero(seen):
        while graph.twins[row] >= 0:
            row = graph.twins[row]
            seen[row] = True
    return seen


def reachable(links, entry):
    """bool (n,): rows that links lead to from `entry`; a list ends at the first negative id."""
    seen = np.zeros(len(links), bool)
    stack = [entry]
    seen[entry] = True
    while stack:
        for row in links[stack.pop()]:
            if row < 0:
                break
            if not seen[row]:
                seen[row] = True
                stack.append(int(row))
    return seen
