"""Filtered search, measured: what is asked (cases), by which arm (arms), beside whom (peer), and the tables of it."""
