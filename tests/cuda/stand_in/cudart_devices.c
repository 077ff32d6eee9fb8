/* libcudart, part 1: devices and errors. */
#include <string.h>

#include "cudart.h"

static __thread cudaError_t last = cudaSuccess;
static __thread int device = 0;

cudaError_t said(cudaError_t error) {
    if (error != cudaSuccess)
        last = error;
    return error;
}

cudaError_t cudaGetLastError(void) {
    cudaError_t error = last;
    last = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void) { return last; }

/* The errors that these stand-ins give, in CUDA's words, because users are shown them. */
static const struct {
    cudaError_t error;
    const char *name, *words;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
};

static int row_of(cudaError_t error) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].error == error)
            return (int)i;
    return -1;
}

const char *cudaGetErrorName(cudaError_t error) {
    int row = row_of(error);
    return row < 0 ? "an error that the stand-in never gives" : errors[row].name;
}

const char *cudaGetErrorString(cudaError_t error) {
    int row = row_of(error);
    return row < 0 ? "an error that the stand-in never gives" : errors[row].words;
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = machine_driver();
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

/* Within a major version a newer runtime works on an older driver; across them it does not. */
cudaError_t unusable(void) {
    if (machine_driver() / 1000 < CUDART_VERSION / 1000)
        return said(cudaErrorInsufficientDriver);
    return machine_devices() > 0 ? cudaSuccess : said(cudaErrorNoDevice);
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = 0;
    cudaError_t error = unusable();
    if (error == cudaSuccess)
        *count = machine_devices();
    return error;
}

int current_device(void) { return device; }

cudaError_t cudaGetDevice(int *found) {
    *found = device;
    return unusable();
}

static cudaError_t known(int wanted) {
    cudaError_t error = unusable();
    if (error == cudaSuccess && (wanted < 0 || wanted >= machine_devices()))
        error = said(cudaErrorInvalidDevice);
    return error;
}

cudaError_t cudaSetDevice(int wanted) {
    cudaError_t error = known(wanted);
    if (error == cudaSuccess)
        device = wanted;
    return error;
}

/* An H100's numbers, by which ONNX Runtime sizes its kernels. */
enum {
    PROCESSORS = 132,
    SHARED_PER_BLOCK = 49152,
    SHARED_PER_BLOCK_OPTIN = 232448,
    SHARED_PER_PROCESSOR = 233472,
    THREADS_PER_BLOCK = 1024,
    THREADS_PER_PROCESSOR = 2048,
    REGISTERS = 65536,
    GRID_X = 2147483647,
    GRID_YZ = 65535,
    BLOCK_Z = 64,
    WARP = 32,
    L2_CACHE = 50 << 20,
};

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int wanted) {
    memset(found, 0, sizeof *found);
    cudaError_t error = known(wanted);
    if (error != cudaSuccess)
        return error;
    snprintf(found->name, sizeof found->name, "%s", machine_name());
    found->major = machine_capability() / 10;
    found->minor = machine_capability() % 10;
    found->totalGlobalMem = machine_memory();
    found->multiProcessorCount = PROCESSORS;
    found->maxThreadsPerBlock = THREADS_PER_BLOCK;
    found->maxThreadsPerMultiProcessor = THREADS_PER_PROCESSOR;
    found->warpSize = WARP;
    found->sharedMemPerBlock = SHARED_PER_BLOCK;
    found->sharedMemPerBlockOptin = SHARED_PER_BLOCK_OPTIN;
    found->sharedMemPerMultiprocessor = SHARED_PER_PROCESSOR;
    found->regsPerBlock = found->regsPerMultiprocessor = REGISTERS;
    found->maxGridSize[0] = GRID_X;
    found->maxGridSize[1] = found->maxGridSize[2] = GRID_YZ;
    found->maxThreadsDim[0] = found->maxThreadsDim[1] = THREADS_PER_BLOCK;
    found->maxThreadsDim[2] = BLOCK_Z;
    found->l2CacheSize = L2_CACHE;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr wanted, int of) {
    cudaError_t error = known(of);
    if (error != cudaSuccess)
        return error;
    switch (wanted) {
    case cudaDevAttrComputeCapabilityMajor: *value = machine_capability() / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = machine_capability() % 10; break;
    case cudaDevAttrMultiProcessorCount: *value = PROCESSORS; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = SHARED_PER_BLOCK; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = SHARED_PER_BLOCK_OPTIN; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = SHARED_PER_PROCESSOR; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = THREADS_PER_BLOCK; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = THREADS_PER_PROCESSOR; break;
    case cudaDevAttrWarpSize: *value = WARP; break;
    default: *value = 1; /* most others ask whether a feature is there */
    }
    return cudaSuccess;
}

/* Drivers' functions by name: none, as with a driver that lacks them. */
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                             unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *found) {
    *function = NULL;
    if (found)
        *found = cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
