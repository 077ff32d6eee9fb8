/* libcublas: handles that exist, and answers that ONNX Runtime reads. What multiplies is among the
   generated functions, which note that they were called. */
#include "machine.h"

enum { SUCCESS = 0, NOT_INITIALIZED = 1 };

int cublasCreate_v2(void **handle) {
    *handle = malloc(1);
    return *handle ? SUCCESS : NOT_INITIALIZED;
}

int cublasDestroy_v2(void *handle) {
    free(handle);
    return SUCCESS;
}

int cublasGetMathMode(void *handle, int *mode) {
    *mode = 0; /* CUBLAS_DEFAULT_MATH */
    return SUCCESS;
}

const char *cublasGetStatusName(int status) { return "a status that the stand-in never gives"; }
const char *cublasGetStatusString(int status) { return "a status that the stand-in never gives"; }
