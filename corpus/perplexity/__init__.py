"""How much the reference models are surprised by each document."""
