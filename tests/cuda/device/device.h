// All that a kernel needs to run on this processor, and the way in.
#pragma once
#include "arithmetic.h"
#include "barriers.h"
#include "matrix.h"
#include "shared.h"
#include "words.h"

#include <tuple>
#include <utility>

template <class... A, size_t... I>
static void device_call(const char *name, void (*kernel)(A...), void **parameters, const unsigned *grid,
                        const unsigned *block, size_t shared, std::index_sequence<I...>) {
    // Threads take no arguments: what the launch gives lies here for all of them.
    static std::tuple<std::decay_t<A>...> given;
    static void (*body)(A...);
    (memcpy((void *)&std::get<I>(given), parameters[I], sizeof(std::get<I>(given))), ...);
    body = kernel;
    device_run(name, [] { body(std::get<I>(given)...); }, grid, block, shared);
}
template <class... A>
static void device_launch(const char *name, void (*kernel)(A...), void **parameters, const unsigned *grid,
                          const unsigned *block, size_t shared) {
    device_call(name, kernel, parameters, grid, block, shared, std::index_sequence_for<A...>());
}
