// libnvrtc.so: the real NVRTC behind it compiles, and what goes in and comes out is kept. DEVICE_KERNELS then holds, by
// hash: source-HASH.ptx (what a source became), HASH.cu and HASH.ptx (source and PTX by the PTX's hash, which is all
// that the driver is given), source-HASH.failed.{cu,log}; and index.tsv, a line for each source that was compiled.
//
// REAL_NVRTC: the path of the library. DEVICE_MISSING=nvrtc|headers: what a machine may lack.
#include "driver.h"
#include "hash.h"

#include <dlfcn.h>
#include <time.h>
#include <unistd.h>

typedef int nvrtcResult;
typedef void *nvrtcProgram;
enum { NVRTC_ERROR_COMPILATION = 6 };

struct program {
    nvrtcProgram real;
    char *source;
    uint64_t name; // of source and options: for another card the same source is another PTX
    char *kept; // the PTX of an earlier run
    char *log;  // of a failure that this file makes
    struct program *next;
};
static struct program *programs;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name) {
    static void *library;
    if (!library) {
        const char *path = getenv("REAL_NVRTC");
        library = dlopen(path ? path : "libnvrtc.so.13", RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            fprintf(stderr, "device: %s\n", dlerror());
            abort();
        }
    }
    void *function = dlsym(library, name);
    if (!function) {
        fprintf(stderr, "device: NVRTC has no %s\n", name);
        abort();
    }
    return function;
}
#define FORWARD(name, parameters, arguments) \
    API nvrtcResult name parameters { return ((nvrtcResult(*) parameters)real(#name)) arguments; }

static struct program *of(nvrtcProgram handle) {
    pthread_mutex_lock(&lock);
    struct program *p = programs;
    while (p && p->real != handle) p = p->next;
    pthread_mutex_unlock(&lock);
    return p;
}

static void path_of(char *out, size_t size, const char *format, uint64_t name) {
    const char *folder = getenv("DEVICE_KERNELS");
    int n = snprintf(out, size, "%s/", folder ? folder : ".");
    snprintf(out + n, size - (size_t)n, format, name);
}
// Whole or not at all: several processes may keep the same file at once.
static void keep(const char *format, uint64_t name, const char *text) {
    char path[1024], draft[1100];
    path_of(path, sizeof path, format, name);
    snprintf(draft, sizeof draft, "%s.%d", path, getpid());
    FILE *out = fopen(draft, "w");
    if (!out) return;
    bool whole = fputs(text, out) >= 0;
    if (fclose(out) == 0 && whole) rename(draft, path);
    else unlink(draft);
}
static char *kept(const char *format, uint64_t name) {
    char path[1024];
    path_of(path, sizeof path, format, name);
    FILE *in = fopen(path, "r");
    if (!in) return NULL;
    fseek(in, 0, SEEK_END);
    long bytes = ftell(in);
    rewind(in);
    char *text = calloc(1, (size_t)bytes + 1);
    bool whole = fread(text, 1, (size_t)bytes, in) == (size_t)bytes;
    fclose(in);
    if (whole) return text;
    free(text);
    return NULL;
}

API nvrtcResult nvrtcCreateProgram(nvrtcProgram *out, const char *source, const char *name, int headers,
                                   const char *const *texts, const char *const *names) {
    nvrtcResult (*create)(nvrtcProgram *, const char *, const char *, int, const char *const *, const char *const *) =
        real("nvrtcCreateProgram");
    nvrtcResult error = create(out, source, name, headers, texts, names);
    if (error) return error;
    struct program *p = calloc(1, sizeof *p);
    p->real = *out;
    p->source = strdup(source);
    pthread_mutex_lock(&lock);
    p->next = programs;
    programs = p;
    pthread_mutex_unlock(&lock);
    return 0;
}

static void index_line(uint64_t name, nvrtcResult error, double seconds, int count, const char *const *options) {
    char path[1024];
    path_of(path, sizeof path, "index.tsv", name);
    FILE *out = fopen(path, "a");
    if (!out) return;
    fprintf(out, "%016lx\t%d\t%.3f\t", name, error, seconds);
    for (int i = 0; i < count; i++) fprintf(out, "%s ", options[i]);
    fputc('\n', out);
    fclose(out);
}

API nvrtcResult nvrtcCompileProgram(nvrtcProgram handle, int count, const char *const *options) {
    struct program *p = of(handle);
    p->name = hash(p->source);
    for (int i = 0; i < count; i++) p->name = p->name * 31 + hash(options[i]);
    uint64_t name = p->name;
    const char *missing = getenv("DEVICE_MISSING");
    if (missing && !strcmp(missing, "headers")) {
        p->log = "cuda_fp16.h: catastrophic error: could not open source file \"cuda_fp16.h\"";
        return NVRTC_ERROR_COMPILATION;
    }
    if ((p->kept = kept("source-%016lx.ptx", name))) return 0;
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    nvrtcResult error =
        ((nvrtcResult(*)(nvrtcProgram, int, const char *const *))real("nvrtcCompileProgram"))(handle, count, options);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) * 1e-9;
    index_line(name, error, seconds, count, options);
    if (error) {
        size_t size = 0;
        ((nvrtcResult(*)(nvrtcProgram, size_t *))real("nvrtcGetProgramLogSize"))(handle, &size);
        char *log = calloc(1, size + 1);
        ((nvrtcResult(*)(nvrtcProgram, char *))real("nvrtcGetProgramLog"))(handle, log);
        keep("source-%016lx.failed.log", name, log);
        keep("source-%016lx.failed.cu", name, p->source);
        free(log);
    }
    return error;
}

// A text's length and the text: this file's own, or NVRTC's by the function `name`.
static nvrtcResult size_of(const char *own, const char *name, nvrtcProgram handle, size_t *size) {
    if (!own) return ((nvrtcResult(*)(nvrtcProgram, size_t *))real(name))(handle, size);
    *size = strlen(own) + 1;
    return 0;
}
static nvrtcResult text_of(const char *own, const char *name, nvrtcProgram handle, char *text) {
    if (!own) return ((nvrtcResult(*)(nvrtcProgram, char *))real(name))(handle, text);
    strcpy(text, own);
    return 0;
}
API nvrtcResult nvrtcGetPTXSize(nvrtcProgram handle, size_t *size) {
    return size_of(of(handle)->kept, "nvrtcGetPTXSize", handle, size);
}
API nvrtcResult nvrtcGetPTX(nvrtcProgram handle, char *ptx) {
    struct program *p = of(handle);
    nvrtcResult error = text_of(p->kept, "nvrtcGetPTX", handle, ptx);
    if (error || p->kept) return error;
    keep("%016lx.cu", hash(ptx), p->source);
    keep("%016lx.ptx", hash(ptx), ptx);
    keep("source-%016lx.ptx", p->name, ptx);
    return 0;
}
API nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram handle, size_t *size) {
    return size_of(of(handle)->log, "nvrtcGetProgramLogSize", handle, size);
}
API nvrtcResult nvrtcGetProgramLog(nvrtcProgram handle, char *log) {
    return text_of(of(handle)->log, "nvrtcGetProgramLog", handle, log);
}

API nvrtcResult nvrtcDestroyProgram(nvrtcProgram *handle) {
    pthread_mutex_lock(&lock);
    for (struct program **p = &programs; *p; p = &(*p)->next)
        if ((*p)->real == *handle) {
            struct program *gone = *p;
            *p = gone->next;
            free(gone->source);
            free(gone->kept);
            free(gone);
            break;
        }
    pthread_mutex_unlock(&lock);
    return ((nvrtcResult(*)(nvrtcProgram *))real("nvrtcDestroyProgram"))(handle);
}
FORWARD(nvrtcGetCUBINSize, (nvrtcProgram p, size_t *size), (p, size))
FORWARD(nvrtcGetCUBIN, (nvrtcProgram p, char *out), (p, out))
FORWARD(nvrtcVersion, (int *major, int *minor), (major, minor))
API const char *nvrtcGetErrorString(nvrtcResult error) {
    return ((const char *(*)(nvrtcResult))real("nvrtcGetErrorString"))(error);
}
