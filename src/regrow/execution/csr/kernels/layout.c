/* Moving activations into the feature-major layout, and the passes over it that are no products. */

/* y[f * ldy + b] = x[b * batch_stride + f * feature_stride] for some features and samples. */
static void copy_square(const float *x, int64_t batch_stride, int64_t feature_stride, float *y,
                        int64_t ldy, int64_t features, int64_t batch) {
  for (int64_t f = 0; f < features; f++)
    for (int64_t b = 0; b < batch; b++)
      y[f * ldy + b] = x[b * batch_stride + f * feature_stride];
}

/* y[f * ldy + b] = x[b * batch_stride + f * feature_stride] for features [f, end), by squares. */
static void pack_features(int64_t batch, int64_t f, int64_t end, const float *x,
                          int64_t batch_stride, int64_t feature_stride, float *y, int64_t ldy) {
  const struct tiles *set = in_use;
  /* Squares of one vector's side: rows are read and columns written a whole vector at a time,
   * while both stay in the cache. */
  const int64_t side = set->lanes;
  for (; f < end; f += side) {
    const int64_t n = f + side < end ? side : end - f;
    for (int64_t b = 0; b < batch; b += side) {
      const int64_t m = b + side < batch ? side : batch - b;
      const float *from = x + b * batch_stride + f * feature_stride;
      float *to = y + f * ldy + b;
      if (feature_stride == 1 && n == side && m == side) set->turn(from, batch_stride, to, ldy);
      else copy_square(from, batch_stride, feature_stride, to, ldy, n, m);
    }
  }
}

/* y[f * ldy + b] = x[b * batch_stride + f * feature_stride] */
EXPORT void regrow_pack(int64_t batch, int64_t features, const float *x, int64_t batch_stride,
                        int64_t feature_stride, float *y, int64_t ldy, int threads) {
  const int64_t strip = 4 * in_use->lanes;
  PARALLEL(omp parallel for num_threads(threads) schedule(static) if (threads > 1))
  for (int64_t f = 0; f < features; f += strip)
    pack_features(batch, f, f + strip < features ? f + strip : features, x, batch_stride,
                  feature_stride, y, ldy);
}

/* Through a ReLU and a bias backwards, in one pass over the rows: out = g where y > 0, else 0;
 * sums = row sums of out. Without y nothing is masked; out and sums may be NULL. */
EXPORT void regrow_epilogue_backward(int64_t rows, int64_t columns, const float *g, int64_t ldg,
                                     const float *y, int64_t ldy, float *out, int64_t ldo,
                                     float *sums, int threads) {
  PARALLEL(omp parallel for num_threads(threads) schedule(static) if (threads > 1))
  for (int64_t r = 0; r < rows; r++) {
    /* Float32 sums of a stretch are added in double: over a long row, float32 alone would lose
     * small terms. */
    double sum = 0;
    for (int64_t i = 0; i < columns; i += STRETCH) {
      const int64_t n = i + STRETCH < columns ? STRETCH : columns - i;
      sum += in_use->epilogue(g + r * ldg + i, y ? y + r * ldy + i : 0,
                              out ? out + r * ldo + i : 0, n);
    }
    if (sums) sums[r] = (float)sum;
  }
}
