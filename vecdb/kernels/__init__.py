"""Here are arrays; which rows are nearest? NumPy and Numba only: no files, no ids, no payloads."""
