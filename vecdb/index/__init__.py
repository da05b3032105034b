"""Here is a segment's matrix; search it. One file per kind, one door; knows no ids, payloads or collections."""
