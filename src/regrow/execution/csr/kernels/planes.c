/* Convolutions by whole 3x3 kernels, each from an input to an output channel.
 *
 * x is [sample][channel][depth][row][column], columns side by side; y likewise, without gaps. Slices
 * of depth are planes, all alike. `tall` rows of a plane are a segment; a task computes a few
 * segments, side by side as one row of columns is, so that narrow planes fill the vectors, too. For
 * a few channels at a time what they read is copied into a zero-padded scratch
 * [channel][row][phase][column], small enough for the first-level cache, and the kernels that read
 * these channels are added to the sums of their outputs. A phase holds every step-th pixel, so that
 * neighbouring outputs read neighbours. */

struct planes {
  int64_t samples, channels, width;         /* width: channels that are read together */
  int64_t source_size[3], source_stride[4]; /* strides of sample, channel, depth, row */
  int64_t step_depth, step;                 /* the same step for rows and columns, 1 or 2 */
  int64_t low[3], high;                     /* zeros before each axis, after the columns */
  int64_t size[3];                          /* of the output: depth, rows, columns */
};

/* How the work is cut; in which order a number is summed does not depend on it. */
struct cut {
  int64_t tall, bands;          /* rows of a segment, segments of a plane */
  int64_t segments, between;    /* of all planes; columns from one segment to the next */
  int64_t group, groups;        /* segments of a task */
  int64_t part, parts, outputs; /* outputs of a task */
  int64_t ld;                   /* floats of a row of sums */
  int64_t rows;                 /* of scratch */
  int64_t channel, row, phase;  /* floats from one to the next in scratch */
  int64_t positions;            /* of a segment's row, of each phase */
  int64_t first[2], end[2];     /* those of each phase that are pixels and not padding */
};

enum { PLANE_SUMS = 1 << 17 }; /* floats that stay in the second-level cache */

/* Choose the height and number of segments that take the least work. */
static void choose_segments(const struct planes *c, struct cut *k) {
  const int64_t lanes = in_use->lanes, tallest = in_use->tallest;
  int64_t least = INT64_MAX;
  for (int64_t tall = tallest / c->step; tall >= tallest / 4; tall /= 2) {
    const int64_t bands = ceil_div(c->size[1], tall), segments = c->samples * c->size[0] * bands;
    for (int64_t group = 1; group <= smaller(segments, 64); group++) {
      const int64_t vectors = ceil_div((group - 1) * k->between + c->size[2], lanes);
      /* One more than the rows: low tiles load more for what they compute. */
      const int64_t work = ceil_div(segments, group) * vectors * (tall + 1);
      if (work >= least) continue;
      least = work;
      k->tall = tall, k->bands = bands, k->segments = segments;
      k->group = group, k->groups = ceil_div(segments, group), k->ld = vectors * lanes;
    }
  }
}

static struct cut cut_of(const struct planes *c, int64_t outputs, int threads) {
  struct cut k = {.outputs = outputs, .positions = c->size[2] + 2 / c->step, .parts = 1};
  /* Where both ends are padded, the zeros after one segment are those before the next. */
  k.between = k.positions - (c->step == 1 && c->low[2] > 0 && c->high > 0);
  choose_segments(c, &k);
  /* A few tasks for each thread; every part copies what it reads, so that no more is better. */
  const int64_t tasks = threads > 1 ? 3 * threads : 1;
  while (k.parts < outputs && (k.groups * k.parts < tasks ||
                               outputs * k.tall * k.ld > PLANE_SUMS * k.parts))
    k.parts *= 2;
  k.part = ceil_div(outputs, k.parts);
  k.rows = (k.tall - 1) * c->step + 3;
  k.phase = k.ld + 16;
  k.row = c->step * k.phase;
  k.channel = k.rows * k.row;
  for (int64_t phase = 0; phase < c->step; phase++) {
    const int64_t pixel = phase - c->low[2], end = ceil_div(c->source_size[2] - pixel, c->step);
    k.first[phase] = smaller(larger(0, ceil_div(-pixel, c->step)), k.positions);
    k.end[phase] = smaller(larger(k.first[phase], end), k.positions);
  }
  return k;
}

/* One row of one segment; position i of a phase is pixel i * step + phase - low. */
static void pack_segment_row(const struct planes *c, const struct cut *k, const float *row,
                             float *to) {
  for (int64_t phase = 0; phase < c->step; phase++, to += k->phase) {
    const int64_t first = k->first[phase], end = row ? k->end[phase] : first;
    const int64_t pixel = phase - c->low[2];
    for (int64_t i = 0; i < first; i++) to[i] = 0;
    if (c->step == 1 && end > first)
      memcpy(to + first, row + first + pixel, (size_t)(end - first) * sizeof *to);
    else
      for (int64_t i = first; i < end; i++) to[i] = row[i * c->step + pixel];
    for (int64_t i = end; i < k->positions; i++) to[i] = 0;
  }
}

/* What `count` segments from `segment` on read of channels [from, to). */
static void pack_segments(const struct planes *c, const struct cut *k, const float *x, int64_t from,
                          int64_t to, int64_t segment, int64_t count, float *scratch) {
  const int64_t *stride = c->source_stride;
  for (int64_t s = 0; s < count; s++) {
    const int64_t plane = (segment + s) / k->bands, top = (segment + s) % k->bands * k->tall;
    const int64_t d = plane % c->size[0] * c->step_depth - c->low[0], h = top * c->step - c->low[1];
    const int64_t image = plane / c->size[0] * stride[0] + d * stride[2] + h * stride[3];
    for (int64_t channel = from; channel < to; channel++)
      for (int64_t i = 0; i < k->rows; i++) {
        const float *row = 0;
        if (d >= 0 && d < c->source_size[0] && h + i >= 0 && h + i < c->source_size[1]) {
          row = x + (image + channel * stride[1] + i * stride[3]);
          /* Of the next channel: processors foresee no jumps from one to the other. */
          if (channel + 1 < c->channels)
            for (int64_t w = 0; w < c->source_size[2]; w += 16)
              __builtin_prefetch(row + stride[1] + w);
        }
        pack_segment_row(c, k, row,
                         scratch + (channel - from) * k->channel + i * k->row + s * k->between);
      }
  }
}

/* Add the kernels of one block of channels to the sums of outputs [from, to). */
static void add_block(const struct sparse *m, const struct cut *k, struct plane_tile t,
                      int64_t block, int64_t from, int64_t to) {
  const struct tiles *set = in_use;
  const int32_t *begin = m->split + block * m->step, *end = begin + m->step;
  const float *x = t.x;
  float *sums = t.sums;
  int64_t width;
  for (int64_t column = 0; column < k->ld; column += width) {
    const int vectors = column + 2 * set->lanes <= k->ld ? 2 : 1;
    width = vectors * set->lanes;
    t.x = x + column;
    for (int64_t o = from; o < to; o++) {
      if (begin[o] == end[o]) continue;
      t.sums = sums + (o - from) * k->tall * k->ld + column;
      set->planes(&t, begin[o], end[o], (int)k->tall, vectors);
    }
  }
}

/* The sums of one output, without the columns between segments, to where they belong. */
static void unpack_sums(const struct planes *c, const struct cut *k, const float *sums, float *y,
                        int64_t output, int64_t segment, int64_t count, int relu) {
  for (int64_t s = 0; s < count; s++) {
    const int64_t plane = (segment + s) / k->bands, top = (segment + s) % k->bands * k->tall;
    const int64_t sample = plane / c->size[0], d = plane % c->size[0];
    const int64_t image = (sample * k->outputs + output) * c->size[0] + d;
    for (int64_t r = 0; r < smaller(k->tall, c->size[1] - top); r++) {
      const float *from = sums + r * k->ld + s * k->between;
      float *to = y + (image * c->size[1] + top + r) * c->size[2];
      for (int64_t w = 0; w < c->size[2]; w++) to[w] = relu && from[w] < 0 ? 0 : from[w];
    }
  }
}

/* y = m * x + bias, with a ReLU on request; m has channels as columns, nine values a nonzero.
 * Returns 0, or 1 if there is no memory. */
EXPORT int regrow_convolve_planes(const struct planes *c, const struct sparse *m,
                                  const float *values, const float *x, float *y, const float *bias,
                                  int relu, int threads) {
  if (!c->samples || !m->rows) return 0;
  const struct cut k = cut_of(c, m->rows, threads);
  const int64_t scratch_size = smaller(c->width, c->channels) * k.channel;
  const int64_t output = k.tall * k.ld, size = ceil_div(scratch_size + k.part * output, 16) * 16;
  float *memory = aligned_alloc(64, (size_t)(size * threads) * sizeof *memory);
  if (!memory) return 1;
  /* What lies beyond the last segment is computed, too, though not kept. */
  memset(memory, 0, (size_t)(size * threads) * sizeof *memory);
  PARALLEL(omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1))
  for (int64_t task = 0; task < k.groups * k.parts; task++) {
    const int64_t from = smaller(task % k.parts * k.part, m->rows);
    const int64_t to = smaller(from + k.part, m->rows);
    const int64_t segment = task / k.parts * k.group;
    const int64_t count = smaller(k.group, k.segments - segment);
    float *scratch = memory + THREAD * size, *sums = scratch + scratch_size;
    for (int64_t o = from; o < to; o++)
      for (int64_t i = 0; i < output; i++) sums[(o - from) * output + i] = bias ? bias[o] : 0;
    for (int64_t block = 0; block < m->blocks && from < to; block++) {
      const int64_t channel = block * c->width, end = smaller(channel + c->width, c->channels);
      const struct plane_tile t = {m->index, values, scratch,         k.channel, k.row,
                                   k.phase,  sums,   (int32_t)channel, (int)c->step, k.ld};
      pack_segments(c, &k, x, channel, end, segment, count, scratch);
      add_block(m, &k, t, block, from, to);
    }
    for (int64_t o = from; o < to; o++)
      unpack_sums(c, &k, sums + (o - from) * output, y, o, segment, count, relu);
  }
  free(memory);
  return 0;
}
