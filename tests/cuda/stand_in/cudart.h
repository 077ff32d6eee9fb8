/* What the parts of the stand-in for libcudart share. */
#ifndef STAND_IN_CUDART_H
#define STAND_IN_CUDART_H

#include <cuda_runtime_api.h>

#include "machine.h"

/* Keeps an error for cudaGetLastError, as CUDA does, and returns it. */
cudaError_t said(cudaError_t error);

/* What stops every call on this machine: a driver too old, no device. cudaSuccess if nothing. */
cudaError_t unusable(void);

/* The thread's current device. */
int current_device(void);

/* Whether a stream is being captured, so that this thread may not do what CUDA calls unsafe, such as
   asking for memory. It is refused, and spoils the capture. */
int capturing(void);
cudaError_t refused_while_capturing(void);

/* Whether the stream that is captured waits for the legacy stream, which then may not be used: copies
   that wait are its. */
int capturing_blocks(void);

/* Whether a stream is the one being captured. */
int is_captured(cudaStream_t stream);

/* The graph takes a copy if its stream is being captured: it happens at each launch. If it is from
   the host, what is there then is what counts; whether it is still the same, the launch notes. */
int captured_copy(void *to, const void *from, size_t bytes, cudaStream_t stream, int from_host);

#endif
