"""Divides kept documents into train, validation and test so that similar ones stay together."""
