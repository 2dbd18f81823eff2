"""Fitting the model; the only package that imports torch."""
