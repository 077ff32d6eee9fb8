/* libcuda, the driver: what a program may ask it about the machine. */
#include <cuda.h>

#include "machine.h"

static CUresult known(CUdevice device) {
    return device < 0 || device >= machine_devices() ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

CUresult cuInit(unsigned flags) {
    return machine_devices() > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CUresult cuDriverGetVersion(int *version) {
    *version = machine_driver();
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
    *count = machine_devices();
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int index) {
    *device = index;
    return known(index);
}

CUresult cuDeviceGetName(char *name, int room, CUdevice device) {
    snprintf(name, (size_t)room, "%s", machine_name());
    return known(device);
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute wanted, CUdevice device) {
    switch (wanted) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = machine_capability() / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = machine_capability() % 10; break;
    default: *value = 1;
    }
    return known(device);
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) {
    *bytes = machine_memory();
    return known(device);
}
