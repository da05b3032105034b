"""`vecdb demo`: real text in, answers out, and everything still there after closing and opening again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vecdb
from vecdb.cli import corpus, terminal
from vecdb.cli.embedder import HashingEmbedder
from vecdb.cli.sizes import print_sizes
from vecdb.errors import InvalidInput
from vecdb.types import F32

BATCH = 1000
SHOWN = 3
NAME = "docstrings"
Embed = Callable[[list[str]], F32]


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    where: dict[str, Any] | None = None


QUESTIONS = (
    Question("open a network socket with a timeout"),
    Question("remove duplicate entries while keeping order"),
    Question("create a temporary file that is deleted when closed", {"kind": "function", "parameters": {"$gte": 2}}),
    Question("raise an error when a timeout expires", {"kind": "class", "public": True}),
    Question("wait until every task is done", {"module": {"$startswith": "concurrent."}}),
    Question(
        "wait for a subprocess to finish", {"is_async": True, "$or": [{"has_default": False}, {"length": {"$lt": 80}}]}
    ),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question found, the seconds of its first and second search, and how it was searched."""

    question: Question
    hits: vecdb.Hits
    first: float
    again: float
    plan: str


def demo(path: Path | None, model: str | None, records: int) -> None:
    began = time.perf_counter()
    if path is not None and path.exists() and any(path.iterdir()):
        raise InvalidInput(f"{path} is not empty; give --path a directory that does not exist yet")
    with directory(path) as place:
        terminal.say(terminal.paint(f"vecdb {vecdb.__version__}", terminal.BOLD) + f"  in {place}")
        terminal.heading("Text that this machine has anyway")
        found = gather(records)
        embed, vectors = embedded([record.text for record in found], model)
        compile_kernels()

        terminal.heading("Write")
        database = vecdb.open(place)
        docs = write(database, found, vectors)
        terminal.heading("Search, while nothing is indexed yet")
        ask(docs, embed, QUESTIONS[:1])
        optimize(docs)
        terminal.heading("Search")
        answers = ask(docs, embed, QUESTIONS)

        terminal.heading("Close, open again, compare")
        begin = time.perf_counter()
        database.close()
        terminal.fact("closed", "everything is on disk", time.perf_counter() - begin)
        reopen(place, len(found), answers, embed)
        terminal.heading("On disk")
        print_sizes(place)
    terminal.say()
    kept = "the temporary directory is gone" if path is None else f"kept in {path}; look with: vecdb info {path}"
    terminal.say(f"Done in {terminal.duration(time.perf_counter() - began)}; {kept}")


@contextmanager
def directory(path: Path | None) -> Iterator[Path]:
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="vecdb-demo-") as folder:
        yield Path(folder) / "data"


def gather(limit: int) -> list[corpus.Record]:
    begin = time.perf_counter()
    with terminal.Bar("collecting") as bar:
        found = corpus.collect(limit, bar)
    packages = len({record.payload["package"] for record in found})
    text = f"{len(found):,} docstrings of {packages:,} modules and packages, parsed and not imported"
    terminal.fact("collected", text, time.perf_counter() - begin)
    return found


def embedded(texts: list[str], model: str | None) -> tuple[Embed, F32]:
    begin = time.perf_counter()
    embed: Embed
    if model is None:
        embed, name = HashingEmbedder().fit(texts).embed, "the built-in hashing embedder"
    else:
        embed, name = sentence_transformer(model), model
    vectors = embed(texts)
    terminal.fact("embedded", f"{vectors.shape[1]} dimensions, by {name}", time.perf_counter() - begin)
    return embed, vectors


def sentence_transformer(model: str) -> Embed:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise InvalidInput(
            f"--model needs sentence-transformers ({error}); pip install 'vecdb-engine[model]', "
            "or leave --model away for the built-in embedder"
        ) from error
    transformer = SentenceTransformer(model)

    def embed(texts: list[str]) -> F32:
        vectors: F32 = transformer.encode(texts, convert_to_numpy=True, show_progress_bar=len(texts) > BATCH)
        return vectors

    return embed


def compile_kernels() -> None:
    begin = time.perf_counter()
    with terminal.Bar("compiling") as bar:
        vecdb.warm_up(bar)
    terminal.fact("compiled", "the kernels: once per machine, kept in a cache", time.perf_counter() - begin)


def write(database: vecdb.Database, found: list[corpus.Record], vectors: F32) -> vecdb.Collection:
    docs = database.create_collection(NAME, dim=int(vectors.shape[1]), metric="cosine")
    begin = time.perf_counter()
    with terminal.Bar("writing") as bar:
        for at in range(0, len(found), BATCH):
            part = found[at : at + BATCH]
            docs.upsert(
                ids=[record.id for record in part],
                vectors=vectors[at : at + BATCH],
                payloads=[record.payload for record in part],
            )
            bar(at + len(part), len(found))
    seconds = time.perf_counter() - begin
    rate = len(found) / seconds
    text = f"{docs.count():,} records in batches of {BATCH:,}, each on disk before the next ({rate:,.0f} a second)"
    terminal.fact("written", text, seconds)
    return docs


def optimize(docs: vecdb.Collection) -> None:
    begin = time.perf_counter()
    docs.optimize()
    terminal.say()
    terminal.fact(
        "optimized",
        "sealed, indexed and merged (it happens by itself; here it was waited for)",
        time.perf_counter() - begin,
    )


def ask(docs: vecdb.Collection, embed: Embed, questions: tuple[Question, ...]) -> list[Answer]:
    answers = [answer(docs, question, embed([question.text])[0]) for question in questions]
    for one in answers:
        print_answer(one)
    return answers


def answer(docs: vecdb.Collection, question: Question, query: F32) -> Answer:
    hits, first = timed_search(docs, question, query)
    _, again = timed_search(docs, question, query)
    plan = summary(docs.explain(query, k=10, where=question.where), docs.count(question.where))
    return Answer(question, hits, first, again, plan)


def timed_search(docs: vecdb.Collection, question: Question, query: F32) -> tuple[vecdb.Hits, float]:
    begin = time.perf_counter()
    hits: vecdb.Hits = docs.search(query, k=10, where=question.where)
    for hit in hits:
        _ = hit.payload  # payloads are read when asked for; here they belong to the cost
    return hits, time.perf_counter() - begin


def summary(explanation: vecdb.Explanation, matching: int) -> str:
    """How it was searched, in a few words: the arm of each segment and how many records match."""
    arms = ", ".join(
        f"{one.plan.arm}{' (not sealed yet)' if one.segment == 'growing' else ''}" for one in explanation.segments
    )
    rows = sum(one.plan.rows for one in explanation.segments)
    return f"{arms or 'nothing to search'}, {matching:,} of {rows:,} match"


def print_answer(one: Answer) -> None:
    where = "" if one.question.where is None else f"  where {one.question.where}"
    terminal.say()
    terminal.say(f"  {terminal.paint(repr(one.question.text), terminal.GREEN)}{where}")
    cost = f"{terminal.duration(one.first)}, again {terminal.duration(one.again)}; {one.plan}"
    terminal.say(terminal.paint(f"  {cost}", terminal.DIM))
    room = terminal.width() - 66
    for hit in list(one.hits)[:SHOWN]:
        first_line = hit.payload["text"].partition("\n")[0]
        name = terminal.clip(str(hit.id), 44)
        terminal.say(
            f"    {hit.distance:.3f}  {hit.payload['kind']:8s}  {name}  {terminal.clip(first_line, room).rstrip()}"
        )
    if not len(one.hits):
        terminal.say("    nothing matches")


def reopen(place: Path, records: int, before: list[Answer], embed: Embed) -> None:
    begin = time.perf_counter()
    with vecdb.open(place) as database:
        docs = database.get_collection(NAME)
        count = docs.count()
        terminal.fact("opened", f"{count:,} records", time.perf_counter() - begin)
        begin = time.perf_counter()
        after = [answer(docs, one.question, embed([one.question.text])[0]) for one in before]
        seconds = time.perf_counter() - begin
    same = all(
        list(old.hits.ids) == list(new.hits.ids) and list(old.hits.distances) == list(new.hits.distances)
        for old, new in zip(before, after, strict=True)
    )
    if count != records or not same:
        raise vecdb.VecdbError(f"after opening again, {count:,} of {records:,} records are there and same hits: {same}")
    terminal.fact("compared", f"{len(after)} searches give the same ids and distances as before", seconds)
