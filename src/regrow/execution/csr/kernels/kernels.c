/* All kernels as one translation unit: `cc -O3 -std=gnu11 -fPIC -fopenmp -c kernels.c`.
 *
 * Plain C, no Python and no torch in it. Link without -fopenmp: the OpenMP runtime is the one that
 * torch has loaded, so that there is one pool of threads in the process. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tile.h"

#ifndef REGROW_SOURCES
#define REGROW_SOURCES ""
#endif
#define EXPORT __attribute__((visibility("default")))
#define INLINE inline __attribute__((always_inline))
#ifdef __clang__
#define PRAGMA_UNROLL _Pragma("clang loop unroll(full)")
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PRAGMA_UNROLL _Pragma("GCC unroll 16")
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (BITS){__VA_ARGS__})
#endif

#ifndef UNROLL /* as nothing: for sanitizers, which take a minute over the unrolled loops */
#define UNROLL PRAGMA_UNROLL
#endif

/* Compilers would rather read memory again for every use: cheap but for numbers that lie across two
 * cache lines. */
#if defined(__x86_64__)
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#else
#define IN_REGISTER(v)
#endif

#ifdef _OPENMP
#include <omp.h>
#define PARALLEL(clauses) _Pragma(#clauses)
#define THREAD omp_get_thread_num()
#else
#define PARALLEL(clauses) (void)threads;
#define THREAD 0
#endif

enum { STRETCH = 1024 }; /* numbers summed in float32 before double takes over */

#include "sets.h"

#include "index.c"
#include "layout.c"
#include "norm.c"
#include "linear.c"
#include "topology.c"
#include "conv.c"
#include "planes.c"
