/* libcudart, part 3: streams, events, and graphs of what a stream was told. */
#include <pthread.h>
#include <string.h>

#include "cudart.h"

struct CUstream_st {
    unsigned flags;
};

/* What a stream was told to do while it was captured: a copy, or a call of the host. */
struct node {
    void *to;
    const void *from;
    size_t bytes;
    void *first; /* what the host held when it was captured; NULL for what comes from a device */
    cudaHostFn_t call;
    void *argument;
};

/* Shared by a graph and what is made of it to be launched, of which each may go first. */
struct CUgraph_st {
    struct node *nodes;
    size_t number;
    int owners;
};

/* The capture that goes on, of which there is one at most. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct CUgraph_st *capture;
static cudaStream_t captured;
static enum cudaStreamCaptureMode mode_of_capture;
static pthread_t thread_of_capture;
static int spoilt;

/* How a thread heeds captures; by default it heeds those of other threads, if they are global. */
static __thread enum cudaStreamCaptureMode heeds = cudaStreamCaptureModeGlobal;

cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) {
    enum cudaStreamCaptureMode before = heeds;
    heeds = *mode;
    *mode = before;
    return cudaSuccess;
}

int capturing(void) {
    pthread_mutex_lock(&lock);
    int own = pthread_equal(thread_of_capture, pthread_self()) &&
              mode_of_capture != cudaStreamCaptureModeRelaxed;
    int others = mode_of_capture == cudaStreamCaptureModeGlobal &&
                 heeds == cudaStreamCaptureModeGlobal;
    int found = capture && heeds != cudaStreamCaptureModeRelaxed && (own || others);
    pthread_mutex_unlock(&lock);
    return found;
}

int capturing_blocks(void) {
    pthread_mutex_lock(&lock);
    int found = capture && !(captured && captured->flags & cudaStreamNonBlocking);
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

/* Adds to the graph if the stream is being captured; says whether. */
static int captured_node(struct node node, cudaStream_t stream) {
    pthread_mutex_lock(&lock);
    int takes = capture && stream == captured;
    if (takes) {
        capture->nodes = realloc(capture->nodes, (capture->number + 1) * sizeof node);
        if (!capture->nodes)
            abort();
        capture->nodes[capture->number++] = node;
    }
    pthread_mutex_unlock(&lock);
    return takes;
}

int captured_copy(void *to, const void *from, size_t bytes, cudaStream_t stream, int from_host) {
    if (!is_captured(stream))
        return 0;
    struct node node = {.to = to, .from = from, .bytes = bytes};
    if (from_host) {
        node.first = malloc(bytes);
        if (!node.first)
            abort();
        memcpy(node.first, from, bytes);
    }
    return captured_node(node, stream);
}

/* By such a call ONNX Runtime takes memory back that a copy of an earlier moment has read. */
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t call, void *argument) {
    struct node node = {.call = call, .argument = argument};
    if (!captured_node(node, stream))
        call(argument);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    *stream = malloc(sizeof **stream);
    if (!*stream)
        abort();
    (*stream)->flags = flags;
    return unusable();
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
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
cudaError_t cudaDeviceSynchronize(void) { return waited("device", capture != NULL); }
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
        if (!capture)
            abort();
        capture->owners = 1;
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
    usleep((useconds_t)machine_number("STAND_IN_CAPTURE_MS", 0) * 1000);
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

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                 unsigned long long flags) {
    graph->owners++;
    *executable = (cudaGraphExec_t)graph;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    const struct CUgraph_st *graph = (const struct CUgraph_st *)executable;
    size_t copies = 0, from_host = 0, stale = 0;
    for (size_t i = 0; i < graph->number; i++) {
        struct node node = graph->nodes[i];
        if (node.call) {
            node.call(node.argument);
            continue;
        }
        copies++;
        from_host += node.first != NULL;
        stale += node.first && memcmp(node.first, node.from, node.bytes) != 0;
        memmove(node.to, node.from, node.bytes);
    }
    note("{\"call\": \"graph\", \"copies\": %zu, \"from_host\": %zu, \"stale\": %zu}", copies, from_host,
         stale);
    return cudaSuccess;
}

static void left(struct CUgraph_st *graph) {
    if (!graph || --graph->owners > 0)
        return;
    for (size_t i = 0; i < graph->number; i++)
        free(graph->nodes[i].first);
    free(graph->nodes);
    free(graph);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    left(graph);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    left((struct CUgraph_st *)executable);
    return cudaSuccess;
}
