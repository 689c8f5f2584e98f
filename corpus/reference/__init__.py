"""Language models of trusted text, and how documents of that text score when a model has not seen them."""
