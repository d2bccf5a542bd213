// FNV-1a of a text: the name under which a kernel's source, PTX and library are kept.
#pragma once
#include <stdint.h>

static inline uint64_t hash(const char *text) {
    uint64_t h = 14695981039346656037u;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 1099511628211u;
    return h;
}
