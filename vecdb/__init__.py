"""vecdb: the vector database that you import."""

__version__ = "0.1.0"
