"""The trainer: a base model, packed documents, an adapter beside its control, and their scores."""
