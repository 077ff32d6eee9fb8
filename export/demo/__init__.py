"""Drawn scenes with exact descriptions, and small models trained on them."""
