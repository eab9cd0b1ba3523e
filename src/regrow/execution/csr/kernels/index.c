/* Building the index of a layer, in time linear in its nonzeros. */

/* Compressed rows of strictly ascending flat positions, int64 (wide) or int32. Returns the number of
 * the first position that is out of order or out of range, -1 if there is none. */
EXPORT int64_t regrow_rows(int64_t nonzeros, const void *positions, int wide, int64_t rows,
                           int64_t columns, int32_t *pointers, int32_t *index) {
  int64_t before = -1, row = 0, start = 0;
  pointers[0] = 0;
  for (int64_t k = 0; k < nonzeros; k++) {
    const int64_t p = wide ? ((const int64_t *)positions)[k] : ((const int32_t *)positions)[k];
    /* Checked on the way, since the loop reads every position in any case. */
    if (p <= before || p >= rows * columns) return k;
    while (p >= start + columns) {
      pointers[++row] = (int32_t)k;
      start += columns;
    }
    index[k] = (int32_t)(p - start);
    before = p;
  }
  while (row < rows) pointers[++row] = (int32_t)nonzeros;
  return -1;
}

/* The same nonzeros ordered by key, by counting: key = keys[column] + shift * (row / group_rows).
 * Without keys a column is its own key. Within a key the order of the rows stays. */
EXPORT void regrow_transpose(int64_t rows, const int32_t *pointers, const int32_t *columns,
                             const int32_t *keys, int64_t group_rows, int64_t shift,
                             int64_t key_count, int32_t *key_pointers, int32_t *row_of,
                             int32_t *order) {
  memset(key_pointers, 0, (size_t)(key_count + 1) * sizeof *key_pointers);
  for (int64_t r = 0; r < rows; r++) {
    const int64_t base = r / group_rows * shift;
    for (int32_t k = pointers[r]; k < pointers[r + 1]; k++)
      key_pointers[base + (keys ? keys[columns[k]] : columns[k]) + 1]++;
  }
  for (int64_t key = 0; key < key_count; key++) key_pointers[key + 1] += key_pointers[key];
  for (int64_t r = 0; r < rows; r++) {
    const int64_t base = r / group_rows * shift;
    for (int32_t k = pointers[r]; k < pointers[r + 1]; k++) {
      /* Counting sort: rows are visited in order, so that they stay in order within a key. */
      const int32_t place = key_pointers[base + (keys ? keys[columns[k]] : columns[k])]++;
      row_of[place] = (int32_t)r;
      order[place] = k;
    }
  }
  /* Filling has moved every pointer to the start of the next key. */
  for (int64_t key = key_count; key > 0; key--) key_pointers[key] = key_pointers[key - 1];
  key_pointers[0] = 0;
}

/* Where the nonzeros of each row pass from one block of `width` indices to the next:
 * split[b * rows + r] is the first nonzero of row r with an index of at least b * width. */
EXPORT void regrow_split(int64_t rows, const int32_t *pointers, const int32_t *index, int64_t width,
                         int64_t blocks, int32_t *split) {
  for (int64_t r = 0; r < rows; r++) {
    int32_t k = pointers[r];
    for (int64_t b = 0; b < blocks; b++) {
      while (k < pointers[r + 1] && index[k] < b * width) k++;
      split[b * rows + r] = k;
    }
    split[blocks * rows + r] = pointers[r + 1];
  }
}
