"""Python processes in which some packages are not installed, as far as they can tell."""

import subprocess
import sys

_HIDE = """
import sys


class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ABSENT:
            return None
        return self.finder.find_spec(name, *rest)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def run_without(
    absent: tuple[str, ...], script: str, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """Run a script, warnings being errors, in a new process that cannot find `absent`."""
    command = [sys.executable, "-W", "error", "-c", f"ABSENT = {absent!r}{_HIDE}{script}"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )
