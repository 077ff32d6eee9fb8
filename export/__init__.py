"""Checkpoints to bundles: graphs built straight from the weights, proved against PyTorch."""
