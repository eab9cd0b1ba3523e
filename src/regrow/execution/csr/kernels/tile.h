/* What one kernel call works on: some rows of a sparse matrix times a tile of dense columns.
 *
 * y[r, :] (+)= sum over the nonzeros k of row r of values[k] * x[index[k], :]
 *
 * A tile is a few vectors wide. In x they lie side by side; in y vector i lies at `at[i]`, so that a
 * convolution can write its positions straight into the layout of the activations. */
#ifndef REGROW_TILE_H
#define REGROW_TILE_H

#include <stdint.h>

enum { LARGEST_TILE = 16 };

struct tile {
  const int32_t *begin, *end; /* nonzeros of row r: begin[r] up to end[r] */
  const int32_t *index;       /* row of x that a nonzero reads, in units of ldx */
  const int32_t *order;       /* place of a nonzero's value; NULL: its own place */
  float *values;
  const float *x;
  int64_t ldx;
  float *y;
  int64_t ldy;
  const int64_t *at;
  const float *bias; /* by row, or NULL */
  int first;         /* start from the bias, not from what y holds; dot: overwrite values */
  int relu;          /* negative results become zero */
};

/* Two feature-major matrices whose product is looked through, a panel of columns at a time. */
struct outer {
  const float *y, *x;
  int64_t ldy, ldx, columns, batch;
  float bound;
  int64_t panel; /* floats of memory for each panel */
  float *panels;
};

/* What was found in some rows of a product: where, and how large. */
struct found {
  int32_t *row, *column;
  float *value, *scratch;
  int64_t count;
};

/* A tile of a kernel-wise convolution: some rows and columns of one output's sums. */
struct plane_tile {
  const int32_t *index;        /* channel that a kernel reads */
  const float *values;         /* nine a kernel */
  const float *x;              /* of channel `first`, what the tile's first number reads */
  int64_t channel, row, phase; /* floats of x from one to the next */
  float *sums;
  int32_t first;
  int step; /* rows and columns of x from one output to the next, 1 or 2 */
  int64_t ld_sums;
};

/* The kernels of one instruction set. */
struct tiles {
  const char *name;
  int lanes;   /* floats in a vector */
  int largest; /* vectors in the widest tile, a power of two */
  int tallest; /* rows of the tallest tile of planes */
  void (*turn)(const float *x, int64_t ldx, float *y, int64_t ldy);
  void (*multiply)(const struct tile *, int64_t row, int64_t end, int vectors);
  void (*multiply_few)(const struct tile *, int64_t row, int64_t end, int columns);
  void (*dot)(const struct tile *, int64_t row, int64_t end, int vectors);
  void (*dot_narrow)(const struct tile *, int64_t row, int64_t end, int columns);
  void (*planes)(const struct plane_tile *, int32_t begin, int32_t end, int rows, int vectors);
  void (*pack_panel)(const struct outer *, int64_t panel);
  void (*above)(const struct outer *, int64_t row, int64_t end, struct found *);
  float (*epilogue)(const float *g, const float *y, float *out, int64_t n);
  float (*squares)(const float *x, float mean, int64_t n);
  float (*product)(const float *g, const float *x, float mean, int64_t n);
  void (*combine)(const float *g, const float *x, float *out, const float *factors, int64_t n);
};

#endif
