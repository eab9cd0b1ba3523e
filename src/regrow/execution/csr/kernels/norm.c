/* Batch normalization of rows: one row holds all numbers of one channel. */

static double row_sum(const float *x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i += STRETCH)
    sum += in_use->epilogue(x + i, 0, 0, i + STRETCH < n ? STRETCH : n - i);
  return sum;
}

/* mean and (biased) variance of every row */
EXPORT void regrow_moments(int64_t rows, int64_t n, const float *x, float *mean, float *variance,
                           int threads) {
  PARALLEL(omp parallel for num_threads(threads) schedule(static) if (threads > 1))
  for (int64_t r = 0; r < rows; r++) {
    const float *row = x + r * n;
    /* Two passes, the second over differences from the mean: the sum of squares minus the
     * squared mean would lose all digits where the mean is large. */
    mean[r] = (float)(row_sum(row, n) / n);
    double sum = 0;
    for (int64_t i = 0; i < n; i += STRETCH)
      sum += in_use->squares(row + i, mean[r], i + STRETCH < n ? STRETCH : n - i);
    variance[r] = (float)(sum / n);
  }
}

/* y = (x - mean) scale + shift; scale is weight / sqrt(variance + epsilon). */
EXPORT void regrow_normalize(int64_t rows, int64_t n, const float *x, const float *mean,
                             const float *scale, const float *shift, float *y, int threads) {
  PARALLEL(omp parallel for num_threads(threads) schedule(static) if (threads > 1))
  for (int64_t r = 0; r < rows; r++) {
    const float factors[4] = {0, scale[r], shift ? shift[r] : 0, mean[r]};
    in_use->combine(0, x + r * n, y + r * n, factors, n);
  }
}

/* sums = row sums of g, products = row sums of g (x - mean), and the gradient of x, in which mean
 * and variance depend on x or (fixed) do not. */
EXPORT void regrow_normalize_backward(int64_t rows, int64_t n, const float *g, const float *x,
                                      const float *mean, const float *scale,
                                      const float *inverse_variance, int fixed, float *sums,
                                      float *products, float *out, int threads) {
  PARALLEL(omp parallel for num_threads(threads) schedule(static) if (threads > 1))
  for (int64_t r = 0; r < rows; r++) {
    const float *grad = g + r * n, *row = x + r * n;
    const double sum = row_sum(grad, n);
    double product = 0;
    for (int64_t i = 0; i < n; i += STRETCH)
      product += in_use->product(grad + i, row + i, mean[r], i + STRETCH < n ? STRETCH : n - i);
    sums[r] = (float)sum;
    products[r] = (float)product;
    if (!out) continue;
    const double a = scale[r];
    /* Written as a g + b (x - mean) + c: one pass, whose three factors are known once the sums
     * are. */
    const float factors[4] = {(float)a, fixed ? 0 : (float)(-a * product / n * inverse_variance[r]),
                              fixed ? 0 : (float)(-a * sum / n), mean[r]};
    in_use->combine(grad, row, out + r * n, factors, n);
  }
}
