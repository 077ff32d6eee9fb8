"""While work is recorded on a GPU, no other thread of the process may use CUDA.

CUDA graphs are captured in the mode `global`, in which memory that any thread takes ends the
recording with an error (docs.nvidia.com, CUDA Runtime API, `cudaStreamCaptureModeGlobal`).
"""

import threading

# Held by whoever records or replays, and by whoever takes or gives back CUDA's memory beside that.
# Not to be taken twice: garbage that is collected while it is held must not count as its holder.
NOTHING_IS_RECORDED = threading.Lock()
