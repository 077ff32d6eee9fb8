/* The machine that the stand-ins pretend, by environment variables, and the log of what they do.

   STAND_IN_DEVICES     how many devices; 2
   STAND_IN_NAME        what they are called; "Stand-in"
   STAND_IN_CAPABILITY  their compute capability, times ten; 90
   STAND_IN_MEMORY      memory of each, in MiB: beyond it nothing is given out. By default 81,920
                        are told of, and there is no limit
   STAND_IN_DRIVER      the newest CUDA that the driver knows, as CUDA writes it; 13000
   STAND_IN_CAPTURE_MS  how many milliseconds a capture takes longer than it would
   STAND_IN_LOG         a file, to which every call that matters is added, one JSON object a line
*/
#ifndef STAND_IN_MACHINE_H
#define STAND_IN_MACHINE_H

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline long machine_number(const char *variable, long otherwise) {
    const char *value = getenv(variable);
    return value && *value ? atol(value) : otherwise;
}

static inline int machine_devices(void) { return (int)machine_number("STAND_IN_DEVICES", 2); }
static inline int machine_capability(void) { return (int)machine_number("STAND_IN_CAPABILITY", 90); }
static inline int machine_driver(void) { return (int)machine_number("STAND_IN_DRIVER", 13000); }
static inline size_t machine_memory(void) {
    return (size_t)machine_number("STAND_IN_MEMORY", 81920) << 20;
}
static inline int machine_memory_ends(void) { return getenv("STAND_IN_MEMORY") != NULL; }
static inline const char *machine_name(void) {
    const char *name = getenv("STAND_IN_NAME");
    return name && *name ? name : "Stand-in";
}

/* Adds one line. It is one write to a file opened for appending, which Linux never mixes with
   another's, so threads, libraries and Python may write to the same file. */
__attribute__((format(printf, 1, 2))) static inline void note(const char *format, ...) {
    static int file = -2;
    if (file == -2) {
        const char *path = getenv("STAND_IN_LOG");
        file = path && *path ? open(path, O_WRONLY | O_APPEND | O_CREAT, 0666) : -1;
    }
    if (file < 0)
        return;
    char line[4096];
    va_list given;
    va_start(given, format);
    int length = vsnprintf(line, sizeof line - 1, format, given);
    va_end(given);
    if (length < 0 || length > (int)sizeof line - 2)
        abort(); /* a log that lacks a line would say what is not so */
    line[length] = '\n';
    if (write(file, line, (size_t)length + 1) != length + 1)
        abort();
}

#endif
