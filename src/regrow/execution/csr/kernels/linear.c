/* Products of a sparse matrix with feature-major activations [features][batch]. */

/* The structure of a sparse matrix. Block b of row r holds the nonzeros split[b * step + r] up to
 * split[(b + 1) * step + r]; with split = pointers and step = 1 the row is one block. */
struct sparse {
  int64_t rows, columns, blocks, step;
  const int32_t *pointers, *split, *index, *order;
};

enum { TURNED_ROWS = 64 }; /* computed before they are transposed */

static const int64_t side_by_side[3][LARGEST_TILE] = {
    {0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60},
    {0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120},
    {0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240}};

/* The first row of part `part` of `parts` with equally many nonzeros; a row itself counts as one. */
static int64_t first_row(const struct sparse *m, int64_t part, int64_t parts) {
  /* Rows differ in their nonzeros: equally many rows would leave threads waiting. The row itself
   * counts because its y is loaded and stored even when it is empty. */
  const int64_t wanted = (m->pointers[m->rows] + m->rows) * part / parts;
  int64_t low = 0, high = m->rows;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (m->pointers[middle] + middle < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/* The most columns that one tile takes: a power of two of vectors, or what is left of one. */
static int64_t piece_width(int64_t left) {
  int64_t width = (int64_t)in_use->lanes * in_use->largest;
  while (width > left && width > in_use->lanes) width /= 2;
  return width < left ? width : left;
}

static int64_t piece_count(int64_t batch) {
  int64_t count = 0;
  for (int64_t at = 0; at < batch; at += piece_width(batch - at)) count++;
  return count;
}

static int64_t piece_start(int64_t batch, int64_t piece) {
  int64_t at = 0;
  while (piece-- > 0) at += piece_width(batch - at);
  return at;
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static struct tile tile_of(const struct sparse *m, const float *values, const float *x, int64_t ldx,
                           const float *y, int64_t ldy) {
  return (struct tile){.index = m->index,
                       .order = m->order,
                       .values = (float *)values,
                       .x = x,
                       .ldx = ldx,
                       .y = (float *)y,
                       .ldy = ldy,
                       .at = side_by_side[in_use->lanes / 8]};
}

static void set_block(struct tile *t, const struct sparse *m, int64_t block) {
  t->begin = m->split + block * m->step;
  t->end = m->split + (block + 1) * m->step;
}

/* Rows [row, end) of m x + bias for the columns of one piece. */
static void multiply_rows(struct tile t, const struct sparse *m, int64_t row, int64_t end,
                          int64_t width, int relu) {
  const struct tiles *set = in_use;
  for (int64_t block = 0; block < m->blocks; block++) {
    set_block(&t, m, block);
    /* The first block starts from the bias and the last one ends with the ReLU: no separate pass
     * over y. */
    t.first = block == 0;
    t.relu = relu && block == m->blocks - 1;
    if (width > set->lanes) set->multiply(&t, row, end, (int)(width / set->lanes));
    else set->multiply_few(&t, row, end, (int)width);
  }
}

enum { NEAR = 1 << 17 }; /* floats that stay in the second-level cache */

/* The matrix as one block, if what few columns hold of x stays in a cache without blocks. */
static struct sparse without_blocks(const struct sparse *m, int64_t width) {
  struct sparse whole = *m;
  if (width > 2 * in_use->lanes || m->columns * width > NEAR) return whole;
  whole.blocks = whole.step = 1;
  whole.split = m->pointers;
  return whole;
}

/* The last samples, fewer than a vector has lanes, with zeros up to a power of two; NULL if there are
 * none, or x is so already. */
static float *padded(const struct sparse *m, const float *x, int64_t ldx, int64_t batch,
                     int64_t *width, int *failed) {
  const int64_t left = batch % in_use->lanes;
  *width = 1;
  while (*width < left) *width *= 2;
  if (!left || (*width == left && ldx == left)) return 0;
  float *made = malloc((size_t)(m->columns * *width) * sizeof *made);
  if (!made) {
    *failed = m->columns > 0;
    return 0;
  }
  x += batch - left;
  for (int64_t c = 0; c < m->columns; c++)
    for (int64_t b = 0; b < *width; b++) made[c * *width + b] = b < left ? x[c * ldx + b] : 0;
  return made;
}

/* y = m x + bias, with a ReLU on request; batch columns, x feature-major. The stride of y between two
 * rows is ldy; with turned, y is batch-major, and ldy its stride between two samples. Returns 0, or 1
 * if there is no memory. */
EXPORT int regrow_multiply(const struct sparse *m, const float *values, const float *x, int64_t ldx,
                            float *y, int64_t ldy, int turned, int64_t batch, const float *bias,
                            int relu, int threads) {
  const int64_t pieces = piece_count(batch);
  const int64_t parts = larger(4 * threads / larger(pieces, 1), (m->rows + 255) / 256);
  int failed = 0;
  int64_t ld_tail;
  float *tail = padded(m, x, ldx, batch, &ld_tail, &failed);
  if (failed) return 1;
  PARALLEL(omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1))
  for (int64_t task = 0; task < pieces * parts; task++) {
    const int64_t start = piece_start(batch, task / parts), part = task % parts;
    const int64_t width = piece_width(batch - start);
    const int64_t row = first_row(m, part, parts), end = first_row(m, part + 1, parts);
    const struct sparse cut = without_blocks(m, width);
    struct tile t = tile_of(m, values, x + start, ldx, y + start, ldy);
    if (tail && width < in_use->lanes) t.x = tail, t.ldx = ld_tail;
    t.bias = bias;
    if (!turned) {
      multiply_rows(t, &cut, row, end, width, relu);
      continue;
    }
    const int64_t some = cut.blocks > 1 ? end - row : TURNED_ROWS; /* rows share blocks of x */
    float *scratch = malloc((size_t)(some * width) * sizeof *scratch);
    if (!scratch && row < end) {
      PARALLEL(omp atomic write)
      failed = 1;
      continue;
    }
    t.ldy = width;
    for (int64_t r = row; r < end; r += some) {
      const int64_t last = r + some < end ? r + some : end;
      /* Kernels address y by the number of the row, which does not begin at 0 here. */
      t.y = scratch - r * width;
      multiply_rows(t, &cut, r, last, width, relu);
      pack_features(last - r, 0, width, scratch, width, 1, y + start * ldy + r, ldy);
    }
    free(scratch);
  }
  free(tail);
  return failed;
}

/* out[k] = y[row of k, :] . x[index of k, :] for every nonzero k; batch columns. */
EXPORT void regrow_dot(const struct sparse *m, float *out, const float *x, int64_t ldx,
                       const float *y, int64_t ldy, int64_t batch, int threads) {
  const struct tiles *set = in_use;
  const int64_t pieces = piece_count(batch);
  const int64_t parts = larger(4 * threads, (m->rows + 255) / 256);
  /* An empty batch has no piece that would write the zeros. */
  if (!pieces) memset(out, 0, (size_t)m->pointers[m->rows] * sizeof *out);
  PARALLEL(omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1))
  for (int64_t part = 0; part < parts; part++) {
    const int64_t row = first_row(m, part, parts), end = first_row(m, part + 1, parts);
    /* A part's rows go through the batch one piece after the other, so that sums are added in
     * one order, however many threads there are. */
    for (int64_t piece = 0; piece < pieces; piece++) {
      const int64_t start = piece_start(batch, piece), width = piece_width(batch - start);
      struct tile t = tile_of(m, out, x + start, ldx, y + start, ldy);
      t.first = piece == 0;
      for (int64_t block = 0; block < m->blocks; block++) {
        set_block(&t, m, block);
        if (width >= set->lanes) set->dot(&t, row, end, (int)(width / set->lanes));
        else set->dot_narrow(&t, row, end, (int)width);
      }
    }
  }
}

/* A layer forwards: x is packed on the way if there is room for it. Returns as regrow_multiply does. */
EXPORT int regrow_linear(const struct sparse *m, const float *values, const float *x,
                          int64_t batch_stride, int64_t feature_stride, int64_t features,
                          float *packed, int64_t ld, float *y, int64_t ldy, int64_t batch,
                          const float *bias, int relu, int threads) {
  if (packed) regrow_pack(batch, features, x, batch_stride, feature_stride, packed, ld, threads);
  return regrow_multiply(m, values, packed ? packed : x, ld, y, ldy, 0, batch, bias, relu, threads);
}

/* A layer backwards: the gradient is packed on the way if there is room for it. Of the gradients of
 * values, input and bias those are left out whose place is NULL. Returns as regrow_multiply does. */
EXPORT int regrow_linear_backward(const struct sparse *m, const struct sparse *transposed,
                                   const float *values, const float *x, int64_t ldx,
                                   const float *grad, int64_t batch_stride, int64_t feature_stride,
                                   float *packed, int64_t ld, float *for_values, float *for_x,
                                   int64_t ld_x, int turned, float *for_bias, int64_t batch,
                                   int threads) {
  if (packed) regrow_pack(batch, m->rows, grad, batch_stride, feature_stride, packed, ld, threads);
  if (packed) grad = packed;
  if (for_bias) regrow_epilogue_backward(m->rows, batch, grad, ld, 0, 0, 0, 0, for_bias, threads);
  if (for_values) regrow_dot(m, for_values, x, ldx, grad, ld, batch, threads);
  if (!for_x) return 0;
  return regrow_multiply(transposed, values, grad, ld, for_x, ld_x, turned, batch, 0, 0, threads);
}
