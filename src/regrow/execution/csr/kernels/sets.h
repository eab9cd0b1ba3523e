/* The instruction sets of this machine, and which one is in use. */

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define REGROW_X86 1
#include <immintrin.h>
#endif

#if defined(REGROW_X86) && (defined(__clang__) || __GNUC__ >= 10)
#define REGROW_BFLOAT 1
#include "bfloat.h"
#endif

#ifdef REGROW_X86
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx2,fma,prefer-vector-width=512")
#endif
#define LANES 16
#define LARGEST 8
#define TITLE "avx512"
#define NAME(x) avx512_##x
#include "tile.inc"
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define LANES 8
#define LARGEST 8
#define TITLE "avx2"
#define NAME(x) avx2_##x
#include "tile.inc"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

#define LANES 4
#ifdef __aarch64__
#define LARGEST 16
#define TITLE "neon"
#else
#define LARGEST 8
#define TITLE "portable"
#endif
#define NAME(x) base_##x
#include "tile.inc"

static const struct tiles *in_use = &base_tiles;

static const struct tiles *set_number(int number) {
  switch (number) {
    case 0: return &base_tiles;
#ifdef REGROW_X86
    case 1: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &avx2_tiles : 0;
    case 2: return __builtin_cpu_supports("avx512f") ? &avx512_tiles : 0;
#endif
#ifdef REGROW_BFLOAT
    case 3: return __builtin_cpu_supports("avx512bf16") ? &avx512_bfloat_tiles : 0;
#endif
  }
  return 0;
}

/* The name of instruction set 0, 1, ... (the plainest first), or NULL if this machine lacks it. */
EXPORT const char *regrow_set(int number) {
  const struct tiles *set = set_number(number);
  return set ? set->name : 0;
}

/* Use an instruction set from now on; returns whether it is there. */
EXPORT int regrow_use(int number) {
  const struct tiles *set = set_number(number);
  if (set) in_use = set;
  return set != 0;
}

/* Floats in a vector, and vectors in the widest tile, of the set in use. */
EXPORT int regrow_lanes(void) { return in_use->lanes; }
EXPORT int regrow_largest(void) { return in_use->largest; }

/* The hash of the sources this library was made of: a library of other sources is not used. */
EXPORT const char *regrow_sources(void) { return REGROW_SOURCES; }
