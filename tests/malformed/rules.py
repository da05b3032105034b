"""What may follow a damage. A typed error must name the file and say what to do."""

from __future__ import annotations

from tests.malformed.damage import COLUMN, INDEX, LOG, ROLES, SEGMENT, TOP, Case

REMEDIES = ("restore", "repair", "put the", "open it with", "choose", "ulimit", "again")
NOTICED = ("empty", "half", "short", "magic", "zeros", "noise", "grown", "missing", "link", "directory", "pipe")


def allowed_outcomes(case: Case) -> tuple[str, ...]:
    """Damage of an index never shows. The log may lose its end, which cannot be told from a write that was cut off."""
    if case.role in INDEX:
        return ("answer",)
    if case.role in LOG:
        return ("error", "prefix", "answer") if case.damage in ("short", "last", "grown") else ("error", "prefix")
    if case.role in SEGMENT or case.role in COLUMN:
        return ("error",) if case.damage in NOTICED else ("error", "answer")
    if case.role == "superblock" or (case.role == "catalog" and case.damage in ("empty", "half", "missing")):
        return ("error",)
    return ("error", "answer")


def names_the_file(role: str, message: str) -> bool:
    if role in LOG:
        return ".wal" in message or "/wal" in message
    if role in TOP:
        return ROLES[role].split("/")[-1] in message or "catalog" in message or "no database at" in message
    return ROLES[role].split("/")[-1] in message or "records in its" in message


def complaint(answer: dict[str, str], allowed: tuple[str, ...], role: str | None = None) -> str | None:
    """What is wrong with an answer of the server; None for nothing."""
    if answer["outcome"] not in allowed:
        return f"{answer['outcome']} instead of {' or '.join(allowed)}: {answer['detail']}"
    if answer["outcome"] != "error":
        return None
    told = answer["detail"]
    if not any(word in told.lower() for word in REMEDIES):
        return f"no remedy is named: {told}"
    if role is not None and not names_the_file(role, told):
        return f"the file is not named: {told}"
    return None
