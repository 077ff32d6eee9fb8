/* libcudart, part 2: memory. It is the host's own, so that copies are real; each block that was
   given out is known, so that a copy's two ends can be told: "device", "pinned" or "pageable". */
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "cudart.h"

enum { ALIGNMENT = 256 }; /* what cudaMalloc promises */
enum kind { PAGEABLE, PINNED, DEVICE };
static const char *kinds[] = {"pageable", "pinned", "device"};

struct block {
    char *at;
    size_t bytes;
    enum kind kind;
    int device;
    void *given; /* what free() takes */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block *blocks;
static size_t number, room;
static size_t used[64]; /* bytes on each device */

static size_t held(int device) { return device < 64 ? used[device] : 0; }

/* The block that an address lies in; NULL if it is pageable. The lock is held. */
static struct block *block_of(const void *address) {
    for (size_t i = 0; i < number; i++)
        if ((uintptr_t)address - (uintptr_t)blocks[i].at < blocks[i].bytes)
            return &blocks[i];
    return NULL;
}

static enum kind kind_of(const void *address) {
    pthread_mutex_lock(&lock);
    struct block *block = block_of(address);
    enum kind kind = block ? block->kind : PAGEABLE;
    pthread_mutex_unlock(&lock);
    return kind;
}

/* Zeros, so that what no kernel wrote is at least the same in every run. */
static cudaError_t give(void **address, size_t bytes, enum kind kind) {
    *address = NULL;
    cudaError_t error = capturing() ? refused_while_capturing() : unusable();
    if (error != cudaSuccess || bytes == 0)
        return error;
    int device = current_device();
    pthread_mutex_lock(&lock);
    int fits = kind != DEVICE || !machine_memory_ends() || held(device) + bytes <= machine_memory();
    void *given = fits ? calloc(bytes + ALIGNMENT, 1) : NULL;
    if (given) {
        if (number == room) {
            room = room ? 2 * room : 256;
            blocks = realloc(blocks, room * sizeof *blocks);
            if (!blocks)
                abort();
        }
        char *at = (char *)(((uintptr_t)given + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
        blocks[number++] = (struct block){at, bytes, kind, device, given};
        if (kind == DEVICE && device < 64)
            used[device] += bytes;
        *address = at;
    }
    pthread_mutex_unlock(&lock);
    note("{\"call\": \"malloc\", \"of\": \"%s\", \"bytes\": %zu, \"device\": %d, \"given\": %s}",
         kinds[kind], bytes, device, given ? "true" : "false");
    return given ? cudaSuccess : said(cudaErrorMemoryAllocation);
}

static cudaError_t take_back(void *address, enum kind kind) {
    if (!address)
        return cudaSuccess;
    if (capturing())
        return refused_while_capturing();
    pthread_mutex_lock(&lock);
    struct block *block = block_of(address), old = {0};
    int ours = block && block->at == address && block->kind == kind;
    if (ours) {
        old = *block;
        *block = blocks[--number];
        if (kind == DEVICE && old.device < 64)
            used[old.device] -= old.bytes;
        free(old.given);
    }
    pthread_mutex_unlock(&lock);
    if (!ours)
        return said(cudaErrorInvalidValue);
    note("{\"call\": \"free\", \"of\": \"%s\", \"bytes\": %zu, \"device\": %d}", kinds[kind],
         old.bytes, old.device);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **address, size_t bytes) { return give(address, bytes, DEVICE); }
cudaError_t cudaFree(void *address) { return take_back(address, DEVICE); }
cudaError_t cudaMallocHost(void **address, size_t bytes) { return give(address, bytes, PINNED); }
cudaError_t cudaHostAlloc(void **address, size_t bytes, unsigned flags) {
    return give(address, bytes, PINNED);
}
cudaError_t cudaFreeHost(void *address) { return take_back(address, PINNED); }

cudaError_t cudaMemGetInfo(size_t *unused, size_t *total) {
    *total = machine_memory();
    *unused = *total - held(current_device());
    return unusable();
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *address) {
    memset(found, 0, sizeof *found);
    pthread_mutex_lock(&lock);
    struct block *block = block_of(address);
    found->type = cudaMemoryTypeUnregistered;
    if (block) {
        found->type = block->kind == DEVICE ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
        found->device = block->device;
        found->devicePointer = (void *)address;
        found->hostPointer = block->kind == DEVICE ? NULL : (void *)address;
    }
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}

/* Whether the ends of a copy are where its caller says; on a real device it would go wrong. */
static int as_said(enum kind to, enum kind from, enum cudaMemcpyKind direction) {
    switch (direction) {
    case cudaMemcpyHostToHost: return to != DEVICE && from != DEVICE;
    case cudaMemcpyHostToDevice: return to == DEVICE && from != DEVICE;
    case cudaMemcpyDeviceToHost: return to != DEVICE && from == DEVICE;
    case cudaMemcpyDeviceToDevice: return to == DEVICE && from == DEVICE;
    default: return 1;
    }
}

static cudaError_t copy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind direction,
                        int waits, cudaStream_t stream) {
    if (bytes == 0)
        return cudaSuccess;
    if (waits && capturing_blocks())
        return refused_while_capturing();
    enum kind end = kind_of(to), start = kind_of(from);
    if (!as_said(end, start, direction))
        return said(cudaErrorInvalidValue);
    int captured = captured_copy(to, from, bytes, stream, start != DEVICE);
    if (!captured)
        memmove(to, from, bytes);
    note("{\"call\": \"copy\", \"from\": \"%s\", \"to\": \"%s\", \"bytes\": %zu, \"waits\": %s, "
         "\"captured\": %s}",
         kinds[start], kinds[end], bytes, waits ? "true" : "false", captured ? "true" : "false");
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind direction) {
    return copy(to, from, bytes, direction, 1, NULL);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind direction,
                            cudaStream_t stream) {
    return copy(to, from, bytes, direction, 0, stream);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind direction,
                              cudaStream_t stream) {
    cudaError_t error = cudaSuccess;
    for (size_t row = 0; row < height && error == cudaSuccess; row++)
        error = copy((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width,
                     direction, 0, stream);
    return error;
}

cudaError_t cudaMemset(void *address, int value, size_t bytes) {
    if (capturing_blocks())
        return refused_while_capturing();
    memset(address, value, bytes);
    return cudaSuccess;
}

/* In a captured stream it waits for the launch, which only the numbers would tell. */
cudaError_t cudaMemsetAsync(void *address, int value, size_t bytes, cudaStream_t stream) {
    if (!is_captured(stream))
        memset(address, value, bytes);
    return cudaSuccess;
}
