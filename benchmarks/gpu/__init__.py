"""What `benchmarks/gpu.sh` runs, in pieces: from a folder of wheels to a table of measurements.

A piece is a module here with

    MODELS: tuple[str, ...]     names out of `settings.FULL` that it measures by default; none for
                                a piece that is about no single model
    def measure(settings, model) -> dict
        What it found, ready for JSON. `model` is None for a piece without MODELS.
    def needed(settings) -> bool
        Optional: whether it must run again though its record is there, for what it makes is not.

It raises `record.SkippedError` where the machine has not what it needs, and `VlrtError` where it
fails. All else, a record of JSON for each piece and model, `record` does. What may crash, or must
be measured apart, runs in processes of its own (`child`).
"""
