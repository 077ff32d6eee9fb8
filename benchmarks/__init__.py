"""Measures vlrt against PyTorch and its peers, one process a contender."""
