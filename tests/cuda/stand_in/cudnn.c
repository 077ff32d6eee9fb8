/* libcudnn: handles and sizes. ONNX Runtime opens it if it is there. Convolutions, which it plans by
   questions about engines, cannot be planned here; reductions and the like run. */
#include "machine.h"

enum { SUCCESS = 0 };

#define HANDLE(name) \
    int name(void **handle) { \
        *handle = calloc(1, 64); \
        return SUCCESS; \
    }
#define FREED(name) \
    int name(void *handle) { \
        free(handle); \
        return SUCCESS; \
    }

HANDLE(cudnnCreate)
HANDLE(cudnnCreateTensorDescriptor)
HANDLE(cudnnCreateReduceTensorDescriptor)
HANDLE(cudnnCreateActivationDescriptor)
HANDLE(cudnnCreatePoolingDescriptor)
FREED(cudnnDestroy)
FREED(cudnnDestroyTensorDescriptor)
FREED(cudnnDestroyReduceTensorDescriptor)
FREED(cudnnDestroyActivationDescriptor)
FREED(cudnnDestroyPoolingDescriptor)

size_t cudnnGetVersion(void) { return 91300; } /* 9.13.0, of the time of CUDA 13.0 */

int cudnnGetReductionWorkspaceSize(void *handle, void *reduction, void *from, void *to,
                                   size_t *bytes) {
    *bytes = 0;
    return SUCCESS;
}

int cudnnGetReductionIndicesSize(void *handle, void *reduction, void *from, void *to,
                                 size_t *bytes) {
    *bytes = 0;
    return SUCCESS;
}

const char *cudnnGetErrorString(int status) { return "a status that the stand-in never gives"; }
