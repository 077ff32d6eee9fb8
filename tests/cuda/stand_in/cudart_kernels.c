/* libcudart, part 4: kernels. None runs, and each is logged by the name it was compiled under, which
   tells which of several ways ONNX Runtime chose (such as flash attention). */
#include <string.h>

#include "cudart.h"

/* ONNX Runtime's wheels hold machine code for capabilities of 7.5 and later. */
enum { OLDEST_CAPABILITY = 75 };

struct kernel {
    const void *function; /* the host's side of it, by which it is launched */
    const char *name;
};
enum { SLOTS = 1 << 18 }; /* several times the kernels that ONNX Runtime has */
static struct kernel kernels[SLOTS];

static struct kernel *slot_of(const void *function) {
    size_t slot = ((size_t)function >> 4) * 2654435761u % SLOTS;
    while (kernels[slot].function && kernels[slot].function != function)
        slot = (slot + 1) % SLOTS;
    return &kernels[slot];
}

/* Called as the provider's library is loaded, once for each kernel, by one thread. */
void __cudaRegisterFunction(void **binary, const char *function, char *device_function,
                            const char *name, int limit, void *thread, void *block, void *block_dim,
                            void *grid_dim, int *warp) {
    *slot_of(function) = (struct kernel){function, name};
}

void **__cudaRegisterFatBinary(void *binary) {
    static void *handle[1];
    return handle;
}

/* The halves of `kernel<<<...>>>(...)`, as the compiler writes it. */
static __thread struct {
    dim3 grid, block;
    size_t shared;
    void *stream;
} configuration;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
    configuration.grid = grid;
    configuration.block = block;
    configuration.shared = shared;
    configuration.stream = stream;
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    *grid = configuration.grid;
    *block = configuration.block;
    *shared = configuration.shared;
    *(void **)stream = configuration.stream;
    return cudaSuccess;
}

static cudaError_t launched(const void *function, cudaStream_t stream) {
    if (machine_capability() < OLDEST_CAPABILITY)
        return said(cudaErrorNoKernelImageForDevice);
    const char *name = slot_of(function)->name;
    note("{\"call\": \"kernel\", \"name\": \"%.3900s\", \"device\": %d, \"captured\": %s}",
         name ? name : "unknown", current_device(), is_captured(stream) ? "true" : "false");
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments,
                             size_t shared, cudaStream_t stream) {
    return launched(function, stream);
}

cudaError_t cudaLaunchCooperativeKernel(const void *function, dim3 grid, dim3 block,
                                        void **arguments, size_t shared, cudaStream_t stream) {
    return launched(function, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *how, const void *function,
                                void **arguments) {
    return launched(function, how->stream);
}

/* How CUDA 13's compiler launches: by a handle, which here is the function itself. */
cudaError_t __cudaGetKernel(const void **kernel, const void *function) {
    *kernel = function;
    return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments,
                               size_t shared, cudaStream_t stream) {
    return launched(kernel, stream);
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *function) {
    memset(found, 0, sizeof *found);
    found->maxThreadsPerBlock = 1024;
    return unusable();
}

/* By this CUTLASS decides how many blocks to start; none would be an error. */
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks,
                                                                   const void *function, int size,
                                                                   size_t shared, unsigned flags) {
    *blocks = 2;
    return cudaSuccess;
}
