"""The only room that sees the others: orchestration, no arithmetic."""
