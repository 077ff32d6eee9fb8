"""Names of parameters."""

import re


def told(value: object) -> str:
    """A value in words that are the same in every process, so that two can share the tests."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
