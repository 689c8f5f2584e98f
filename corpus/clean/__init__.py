"""Pages to documents: main text, normalised, with its language, without personal data."""
