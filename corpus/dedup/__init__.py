"""Finds exact and near duplicates and keeps the preferred document of each cluster."""
