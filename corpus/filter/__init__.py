"""Decides by the signals of a document, and a profile of bounds per language, whether it stays."""
