"""Signals of each document: lengths, shares of kinds of characters, noise, repetition, lexical diversity."""
