/* Products of a sparse matrix with shifted images, batch innermost: memory [channel][d][h][w][batch].
 *
 * Some rows of an image and `chunk` samples at a time are copied into a zero-padded scratch
 * [channel][phase][d][h][w][chunk]. A phase holds every step-th pixel, so that in scratch each
 * nonzero of the weight is one constant offset, whatever stride and dilation, and neighbouring
 * output positions lie side by side. `index` of the matrix holds these offsets, in units of chunk. */

struct conv {
  int64_t batch, chunk;
  int64_t channels, source_channel;                     /* of the images that are read */
  int64_t source_size[3], source_stride[3];             /* without batch, whose stride is 1 */
  int64_t step[3], phases[3], low[3];                   /* low: zeros before the first pixel */
  int64_t extent[3];                                    /* of scratch, of one phase */
  int64_t size[3], stride[3], row_stride;               /* of the positions that are computed */
  int64_t band[3];                                      /* positions computed from one scratch */
};

struct piece {
  int64_t sample, samples; /* of the batch */
  int64_t from[3], to[3];  /* of the positions */
};

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* How many pieces a convolution is computed in. */
EXPORT int64_t regrow_tasks(const struct conv *c) {
  return ceil_div(c->batch, c->chunk) * ceil_div(c->size[0], c->band[0]) *
         ceil_div(c->size[1], c->band[1]);
}

static struct piece piece_of(const struct conv *c, int64_t task) {
  struct piece p;
  for (int axis = 1; axis >= 0; axis--) {
    const int64_t bands = ceil_div(c->size[axis], c->band[axis]);
    p.from[axis] = task % bands * c->band[axis];
    p.to[axis] = smaller(p.from[axis] + c->band[axis], c->size[axis]);
    task /= bands;
  }
  /* Rows are never cut: positions side by side share what they read. */
  p.from[2] = 0;
  p.to[2] = c->size[2];
  p.sample = task * c->chunk;
  p.samples = smaller(c->chunk, c->batch - p.sample);
  return p;
}

static int64_t scratch_size(const struct conv *c) {
  return c->channels * c->phases[0] * c->phases[1] * c->phases[2] * c->extent[0] * c->extent[1] *
         c->extent[2] * c->chunk;
}

static void copy_samples(float *to, const float *from, int64_t samples, int64_t chunk) {
  /* The usual case with a constant length, which compilers turn into one vector move. */
  if (samples == 16 && chunk == 16) {
    memcpy(to, from, 16 * sizeof *to);
    return;
  }
  memcpy(to, from, (size_t)samples * sizeof *to);
  memset(to + samples, 0, (size_t)(chunk - samples) * sizeof *to);
}

/* One row of one phase: scratch position w holds pixel w * step + phase - low. */
static void pack_row(const struct conv *c, const struct piece *p, const float *row, int64_t phase,
                     float *to) {
  const int64_t chunk = c->chunk, step = c->step[2], stride = c->source_stride[2];
  int64_t pixel = phase - c->low[2];
  for (int64_t w = 0; w < c->extent[2]; w++, pixel += step, to += chunk) {
    if (row && pixel >= 0 && pixel < c->source_size[2])
      copy_samples(to, row + pixel * stride, p->samples, chunk);
    else memset(to, 0, (size_t)chunk * sizeof *to);
  }
}

static void pack_image(const struct conv *c, const struct piece *p, const float *image,
                       float *to) {
  const int64_t row = c->extent[2] * c->chunk;
  for (int64_t phase = 0; phase < c->phases[0] * c->phases[1] * c->phases[2]; phase++) {
    const int64_t phase_d = phase / (c->phases[1] * c->phases[2]);
    const int64_t phase_h = phase / c->phases[2] % c->phases[1];
    for (int64_t d = 0; d < c->extent[0]; d++) {
      const int64_t pixel_d = (p->from[0] + d) * c->step[0] + phase_d - c->low[0];
      for (int64_t h = 0; h < c->extent[1]; h++, to += row) {
        const int64_t pixel_h = (p->from[1] + h) * c->step[1] + phase_h - c->low[1];
        const int inside = pixel_d >= 0 && pixel_d < c->source_size[0] && pixel_h >= 0 &&
                           pixel_h < c->source_size[1];
        pack_row(c, p,
                 inside ? image + pixel_d * c->source_stride[0] + pixel_h * c->source_stride[1] : 0,
                 phase % c->phases[2], to);
      }
    }
  }
}

static void pack_piece(const struct conv *c, const struct piece *p, const float *source,
                       float *scratch) {
  const int64_t image = scratch_size(c) / c->channels;
  for (int64_t channel = 0; channel < c->channels; channel++)
    pack_image(c, p, source + channel * c->source_channel + p->sample, scratch + channel * image);
}

/* What the threads share while they compute one convolution. */
struct work {
  const struct conv *c;
  const struct sparse *m;
  const float *values, *bias;
  float *target;
  int relu, dots;
};

/* The end of a batch does not fill a chunk: its tile is computed in `edge`, its lanes are copied. */
static void copy_lanes(const struct conv *c, const struct tile *t, float *target, int64_t samples,
                       int64_t row, int64_t end, int64_t positions, int in) {
  for (int64_t r = row; r < end; r++)
    for (int64_t w = 0; w < positions; w++) {
      float *inner = t->y + r * t->ldy + w * c->chunk;
      float *outer = target + r * c->row_stride + w * c->stride[2];
      if (in) copy_samples(inner, outer, samples, c->chunk);
      else memcpy(outer, inner, (size_t)samples * sizeof *outer);
    }
}

static void compute_tile(const struct work *k, struct tile *t, const struct piece *p, float *target,
                         int64_t row, int64_t end, int64_t positions, float *edge) {
  const struct tiles *set = in_use;
  const struct conv *c = k->c;
  const int partial = p->samples < c->chunk;
  const int64_t vectors = positions * c->chunk / set->lanes;
  int64_t at[LARGEST_TILE];
  for (int64_t i = 0; i < vectors; i++)
    at[i] = i * set->lanes / c->chunk * c->stride[2] + i * set->lanes % c->chunk;
  t->y = partial ? edge : target;
  t->ldy = partial ? positions * c->chunk : c->row_stride;
  t->at = partial ? side_by_side[set->lanes / 8] : at;
  /* The unused lanes are zeros, which add nothing to a dot product. */
  if (partial && k->dots) copy_lanes(c, t, target, p->samples, row, end, positions, 1);
  for (int64_t block = 0; block < k->m->blocks; block++) {
    set_block(t, k->m, block);
    t->first = !k->dots && block == 0;
    t->relu = k->relu && block == k->m->blocks - 1;
    if (k->dots) set->dot(t, row, end, (int)vectors);
    else set->multiply(t, row, end, (int)vectors);
  }
  if (partial && !k->dots) copy_lanes(c, t, target, p->samples, row, end, positions, 0);
}

static void compute_piece(const struct work *k, const struct piece *p, const float *scratch,
                          float *values, int64_t row, int64_t end, float *edge) {
  const struct conv *c = k->c;
  const int64_t widest = (int64_t)in_use->lanes * in_use->largest / c->chunk;
  struct tile t = tile_of(k->m, values, 0, c->chunk, 0, 0);
  t.bias = k->bias;
  for (int64_t d = p->from[0]; d < p->to[0]; d++)
    for (int64_t h = p->from[1]; h < p->to[1]; h++) {
      const float *source =
          scratch + ((d - p->from[0]) * c->extent[1] + h - p->from[1]) * c->extent[2] * c->chunk;
      float *target = k->target + p->sample + d * c->stride[0] + h * c->stride[1];
      int64_t positions = widest;
      for (int64_t w = 0; w < c->size[2]; w += positions) {
        /* The end of a row in ever narrower tiles: kernels exist for powers of two only. */
        while (positions > c->size[2] - w) positions /= 2;
        t.x = source + w * c->chunk;
        compute_tile(k, &t, p, target + w * c->stride[2], row, end, positions, edge);
      }
    }
}

/* Memory of one thread: scratch, and a tile of every row. */
static int64_t thread_size(const struct work *k) {
  const int64_t tile = (int64_t)in_use->lanes * in_use->largest;
  return ceil_div(scratch_size(k->c) + k->m->rows * tile, 16) * 16;
}

/* y = m * x + bias, with a ReLU on request. Returns 0, or 1 if there is no memory. */
EXPORT int regrow_convolve(const struct conv *c, const struct sparse *m, const float *values,
                           const float *x, float *y, const float *bias, int relu, int threads) {
  const struct work k = {c, m, values, bias, y, relu, 0};
  const int64_t tasks = regrow_tasks(c), size = thread_size(&k);
  /* One allocation for all threads, not one a task. */
  float *memory = aligned_alloc(64, (size_t)(size * threads) * sizeof *memory);
  if (!memory) return 1;
  PARALLEL(omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1))
  for (int64_t task = 0; task < tasks; task++) {
    const struct piece p = piece_of(c, task);
    float *scratch = memory + THREAD * size, *edge = scratch + scratch_size(c);
    pack_piece(c, &p, x, scratch);
    compute_piece(&k, &p, scratch, (float *)values, 0, m->rows, edge);
  }
  free(memory);
  return 0;
}

/* Gradients of the nonzeros, out[part][k]: parts are summed by the caller, so that the result does
 * not depend on the number of threads. Returns 0, or 1 if there is no memory. */
EXPORT int regrow_convolve_dot(const struct conv *c, const struct sparse *m, float *out,
                               int64_t parts, const float *x, const float *y, int threads) {
  const struct work k = {c, m, 0, 0, (float *)y, 0, 1};
  const int64_t tasks = regrow_tasks(c), size = thread_size(&k), nonzeros = m->pointers[m->rows];
  float *memory = aligned_alloc(64, (size_t)(size * threads) * sizeof *memory);
  if (!memory) return 1;
  PARALLEL(omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1))
  for (int64_t part = 0; part < parts; part++) {
    float *scratch = memory + THREAD * size, *edge = scratch + scratch_size(c);
    float *values = out + part * nonzeros;
    memset(values, 0, (size_t)nonzeros * sizeof *values);
    /* Which tasks a part adds up depends on the number of parts alone. */
    for (int64_t task = tasks * part / parts; task < tasks * (part + 1) / parts; task++) {
      const struct piece p = piece_of(c, task);
      pack_piece(c, &p, x, scratch);
      compute_piece(&k, &p, scratch, values, 0, m->rows, edge);
    }
  }
  free(memory);
  return 0;
}
