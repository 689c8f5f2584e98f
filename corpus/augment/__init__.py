"""Variants of train documents: conservative perturbations, each past gates or marked with the gate that failed."""
