"""Measurements on real data. Nothing in here is a test: figures are printed and kept, never asserted."""
