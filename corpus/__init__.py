"""corpusmill: from raw pages to a curated corpus, every decision explained."""

__version__ = "0.1.0"
