"""While work is recorded on a GPU, no other thread of the process may use CUDA.

CUDA graphs are captured in the mode `global`, in which memory that any thread takes ends the
recording with an error (docs.nvidia.com, CUDA Runtime API, `cudaStreamCaptureModeGlobal`).
"""

import threading

# Held by whoever records or replays, and by whoever takes or gives back CUDA's memory beside that.
NOTHING_IS_RECORDED = threading.RLock()
