/* Topology updates: ascending positions, and the largest entries of a gradient that is not stored. */

/* Flat positions of compressed rows. */
EXPORT void regrow_positions(int64_t rows, const int32_t *pointers, const int32_t *index,
                             int64_t columns, int32_t *out) {
  for (int64_t r = 0; r < rows; r++)
    for (int32_t k = pointers[r]; k < pointers[r + 1]; k++)
      out[k] = (int32_t)(r * columns + index[k]);
}

/* Where in `before` each number of `after` stands, -1 if it does not; both ascend. Returns how many
 * they share. */
EXPORT int64_t regrow_locate(int64_t n, const int32_t *before, int64_t m, const int32_t *after,
                             int32_t *source) {
  int64_t i = 0, shared = 0;
  for (int64_t j = 0; j < m; j++) {
    while (i < n && before[i] < after[j]) i++;
    const int there = i < n && before[i] == after[j];
    source[j] = there ? (int32_t)i : -1;
    shared += there;
  }
  return shared;
}

/* Merge two ascending lists into one. */
EXPORT void regrow_merge(int64_t n, const int32_t *a, int64_t m, const int32_t *b, int32_t *out) {
  int64_t i = 0, j = 0;
  while (i < n && j < m) {
    const int first = a[i] <= b[j];
    *out++ = first ? a[i] : b[j];
    i += first;
    j += !first;
  }
  memcpy(out, a + i, (size_t)(n - i) * sizeof *a);
  memcpy(out + (n - i), b + j, (size_t)(m - j) * sizeof *b);
}

/* Set bits by position, the lowest bit of a byte first. */
EXPORT void regrow_mark(int64_t n, const int32_t *positions, uint8_t *bits) {
  for (int64_t k = 0; k < n; k++) bits[positions[k] >> 3] |= (uint8_t)(1 << (positions[k] & 7));
}

enum { BAND = 48 }; /* rows that share a panel while it is in the first-level cache; all heights divide it */

/* The entries of y xT, [rows][columns], whose magnitude exceeds bound >= 0 or is not a number,
 * ascending by position; y and x are feature-major. Products are compared where they arise, in
 * registers. Returns how many there are; what is written is of use only if they are no more than
 * capacity. -1 without memory. */
EXPORT int64_t regrow_above(int64_t rows, int64_t columns, int64_t batch, const float *y,
                            int64_t ldy, const float *x, int64_t ldx, float bound,
                            int64_t capacity, int32_t *positions, float *values, int threads) {
  const struct tiles *set = in_use;
  const int64_t width = 2 * set->lanes, count = (columns + width - 1) / width;
  const int64_t panel = (batch + 1) * width;
  float *panels = malloc((size_t)larger(count * panel, 1) * sizeof *panels);
  if (!panels) return -1;
  const struct outer o = {y, x, ldy, ldx, columns, batch, bound, panel, panels};
  int64_t total = 0;
  int failed = 0;
  PARALLEL(omp parallel num_threads(threads) if (threads > 1))
  {
    const size_t size = (size_t)(BAND * columns + 1);
    /* Room for every entry of a band, so that the kernels need no check, and for one more: an
     * entry is written before it is known whether it counts. */
    struct found found = {malloc(size * sizeof(int32_t)), malloc(size * sizeof(int32_t)),
                          malloc(size * sizeof(float)),
                          malloc((size_t)(12 * (batch + 1)) * sizeof(float)), 0};
    const int lacking = !found.row || !found.column || !found.value || !found.scratch;
    if (lacking) {
      PARALLEL(omp atomic write)
      failed = 1;
    }
    PARALLEL(omp for)
    for (int64_t p = 0; p < count; p++) set->pack_panel(&o, p);
    PARALLEL(omp for ordered schedule(dynamic))
    for (int64_t row = 0; row < rows; row += BAND) {
      const int64_t end = row + BAND < rows ? row + BAND : rows;
      int64_t at;
      found.count = 0;
      if (!lacking) set->above(&o, row, end, &found);
      /* Bands end in any order, but their place in the output is given out in the order of rows:
       * positions come out ascending without a sort over all. */
      PARALLEL(omp ordered)
      {
        at = total;
        total += found.count;
      }
      /* Counted on, though nothing more is written: the caller learns how many there are. */
      if (at + found.count > capacity) continue;
      int64_t next[BAND] = {0}; /* sort by row; columns ascend already */
      for (int64_t k = 0; k < found.count; k++) next[found.row[k] - row]++;
      for (int64_t r = 0, sum = at; r < end - row; r++) {
        const int64_t here = next[r];
        next[r] = sum;
        sum += here;
      }
      for (int64_t k = 0; k < found.count; k++) {
        const int64_t to = next[found.row[k] - row]++;
        positions[to] = (int32_t)(found.row[k] * columns + found.column[k]);
        values[to] = found.value[k];
      }
    }
    free(found.row);
    free(found.column);
    free(found.value);
    free(found.scratch);
  }
  free(panels);
  return failed ? -1 : total;
}
