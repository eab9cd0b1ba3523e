/* Moving activations into the feature-major layout, and the passes over it that are no products. */

enum { SQUARE = 16 };

/* y[f * ldy + b] = x[b * batch_stride + f * feature_stride] */
EXPORT void regrow_pack(int64_t batch, int64_t features, const float *x, int64_t batch_stride,
                        int64_t feature_stride, float *y, int64_t ldy, int threads) {
  const int64_t strips = (features + SQUARE - 1) / SQUARE;
  PARALLEL(omp parallel for num_threads(threads) schedule(static) if (threads > 1))
  for (int64_t strip = 0; strip < strips; strip++) {
    const int64_t f0 = strip * SQUARE;
    const int64_t f1 = f0 + SQUARE < features ? f0 + SQUARE : features;
    for (int64_t b0 = 0; b0 < batch; b0 += SQUARE) {
      const int64_t b1 = b0 + SQUARE < batch ? b0 + SQUARE : batch;
      for (int64_t f = f0; f < f1; f++)
        for (int64_t b = b0; b < b1; b++)
          y[f * ldy + b] = x[b * batch_stride + f * feature_stride];
    }
  }
}

/* Through a ReLU and a bias backwards, in one pass over the rows: out = g where y > 0, else 0;
 * sums = row sums of out. Without y nothing is masked; out and sums may be NULL. */
EXPORT void regrow_epilogue_backward(int64_t rows, int64_t columns, const float *g, int64_t ldg,
                                     const float *y, int64_t ldy, float *out, int64_t ldo,
                                     float *sums, int threads) {
  PARALLEL(omp parallel for num_threads(threads) schedule(static) if (threads > 1))
  for (int64_t r = 0; r < rows; r++) {
    double sum = 0;
    for (int64_t i = 0; i < columns; i += STRETCH) {
      const int64_t n = i + STRETCH < columns ? STRETCH : columns - i;
      sum += in_use->epilogue(g + r * ldg + i, y ? y + r * ldy + i : 0,
                              out ? out + r * ldo + i : 0, n);
    }
    if (sums) sums[r] = (float)sum;
  }
}
