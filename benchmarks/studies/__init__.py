"""Studies behind single decisions of vlrt's: `python -m benchmarks.studies.attention`."""
