/* libcudart, part 3: streams, events, and graphs of what a stream was told. */
#include <pthread.h>
#include <string.h>

#include "cudart.h"

struct copy {
    void *to;
    const void *from;
    size_t bytes;
};

struct CUgraph_st {
    struct copy *copies;
    size_t number;
};

/* The capture that goes on, of which there is one at most. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct CUgraph_st *capture;
static cudaStream_t captured;
static enum cudaStreamCaptureMode mode_of_capture;
static pthread_t thread_of_capture;
static int spoilt;

/* In the global mode no thread may do what is unsafe, in the thread's own mode that thread alone. */
int capturing(void) {
    pthread_mutex_lock(&lock);
    int all = mode_of_capture == cudaStreamCaptureModeGlobal;
    int own = mode_of_capture == cudaStreamCaptureModeThreadLocal &&
              pthread_equal(thread_of_capture, pthread_self());
    int found = capture && (all || own);
    pthread_mutex_unlock(&lock);
    return found;
}

int is_captured(cudaStream_t stream) {
    pthread_mutex_lock(&lock);
    int found = capture && stream == captured;
    pthread_mutex_unlock(&lock);
    return found;
}

cudaError_t refused_while_capturing(void) {
    spoilt = 1;
    note("{\"call\": \"refused\", \"why\": \"a stream is being captured\"}");
    return said(cudaErrorStreamCaptureUnsupported);
}

int captured_copy(void *to, const void *from, size_t bytes, cudaStream_t stream) {
    pthread_mutex_lock(&lock);
    int takes = capture && stream == captured;
    if (takes) {
        capture->copies = realloc(capture->copies, (capture->number + 1) * sizeof(struct copy));
        if (!capture->copies)
            abort();
        capture->copies[capture->number++] = (struct copy){to, from, bytes};
    }
    pthread_mutex_unlock(&lock);
    return takes;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    *stream = malloc(1);
    return unusable();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    return cudaStreamCreate(stream);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    free(stream);
    return cudaSuccess;
}

static cudaError_t waited(const char *for_what, int refused) {
    if (refused)
        return refused_while_capturing();
    note("{\"call\": \"wait\", \"for\": \"%s\"}", for_what);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return waited("stream", is_captured(stream));
}
cudaError_t cudaDeviceSynchronize(void) { return waited("device", capturing()); }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return waited("event", 0); }

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    *event = malloc(1);
    return unusable();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    return cudaEventCreate(event);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    free(event);
    return cudaSuccess;
}

/* ONNX Runtime times convolutions by it, and takes the fastest: all are alike. */
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    *milliseconds = 1;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    pthread_mutex_lock(&lock);
    int busy = capture != NULL;
    if (!busy) {
        capture = calloc(1, sizeof *capture);
        captured = stream;
        mode_of_capture = mode;
        thread_of_capture = pthread_self();
        spoilt = 0;
    }
    pthread_mutex_unlock(&lock);
    if (busy)
        return refused_while_capturing();
    const char *modes[] = {"global", "thread", "relaxed"};
    note("{\"call\": \"capture\", \"mode\": \"%s\"}", modes[mode]);
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    pthread_mutex_lock(&lock);
    *graph = capture;
    int failed = spoilt || !capture;
    capture = NULL;
    captured = NULL;
    pthread_mutex_unlock(&lock);
    note("{\"call\": \"captured\", \"whole\": %s}", failed ? "false" : "true");
    if (!failed)
        return cudaSuccess;
    *graph = NULL;
    return said(cudaErrorStreamCaptureInvalidated);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = !is_captured(stream) ? cudaStreamCaptureStatusNone
              : spoilt             ? cudaStreamCaptureStatusInvalidated
                                   : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

/* The executable keeps its own list of copies, because its graph may be destroyed before it. */
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                 unsigned long long flags) {
    struct CUgraph_st *own = malloc(sizeof *own);
    size_t bytes = graph->number * sizeof(struct copy);
    *own = (struct CUgraph_st){malloc(bytes + 1), graph->number};
    memcpy(own->copies, graph->copies ? graph->copies : own->copies, bytes);
    *executable = (cudaGraphExec_t)own;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    const struct CUgraph_st *graph = (const struct CUgraph_st *)executable;
    for (size_t i = 0; i < graph->number; i++)
        memmove(graph->copies[i].to, graph->copies[i].from, graph->copies[i].bytes);
    note("{\"call\": \"graph\", \"copies\": %zu}", graph->number);
    return cudaSuccess;
}

static void forget(struct CUgraph_st *graph) {
    if (graph)
        free(graph->copies);
    free(graph);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    forget(graph);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    forget((struct CUgraph_st *)executable);
    return cudaSuccess;
}
