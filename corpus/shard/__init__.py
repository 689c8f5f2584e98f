"""The corpus as people take it away: Parquet, JSONL, instruction pairs, a dataset card."""
