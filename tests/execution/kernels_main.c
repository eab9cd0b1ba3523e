/* Runs the kernels over many shapes under sanitizers; results are compared with plain loops. */
#include <stdlib.h>

/* What the kernels allocate: fails once after so many times, never with -1. */
static int grants = -1;
static void *granted(void *memory) {
  if (grants >= 0 && grants-- == 0) {
    free(memory);
    return 0;
  }
  return memory;
}
#define malloc(size) granted(malloc(size))
#define aligned_alloc(alignment, size) granted(aligned_alloc(alignment, size))
#include "kernels.c"
#undef malloc
#undef aligned_alloc

#include <math.h>
#include <stdio.h>

static uint64_t state = 1;

static double uniform(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(state >> 33) / 2147483648.0;
}

static int64_t below(int64_t n) { return (int64_t)(uniform() * (double)n); }

static float *numbers(int64_t n) {
  float *made = malloc((size_t)(n ? n : 1) * sizeof *made);
  for (int64_t i = 0; i < n; i++) made[i] = (float)(2 * uniform() - 1);
  return made;
}

static void require(int truth, const char *what) {
  if (truth) return;
  fprintf(stderr, "wrong: %s with %s\n", what, in_use->name);
  exit(1);
}

static int near(double a, double b) { return fabs(a - b) < 1e-3 * (1 + fabs(b)); }

/* A random matrix: structure by rows and by columns, cut in blocks, and as positions. */
struct sample {
  struct sparse forward, transposed;
  int64_t rows, columns, nonzeros;
  int64_t *positions;
  void *owned[8];
};

static struct sample make(int64_t rows, int64_t columns, double density, int64_t width) {
  struct sample s = {.rows = rows, .columns = columns};
  s.positions = malloc((size_t)(rows * columns + 1) * sizeof *s.positions);
  for (int64_t p = 0; p < rows * columns; p++)
    if (uniform() < density) s.positions[s.nonzeros++] = p;
  const size_t n = (size_t)s.nonzeros + 1, size = sizeof(int32_t);
  const int64_t blocks = ceil_div(columns, width);
  int32_t *pointers = malloc((size_t)(rows + 1) * size), *index = malloc(n * size);
  int32_t *by_column = malloc((size_t)(columns + 1) * size), *row_of = malloc(n * size);
  int32_t *order = malloc(n * size), *split = malloc((size_t)((blocks + 1) * rows) * size);
  require(regrow_rows(s.nonzeros, s.positions, 1, rows, columns, pointers, index) < 0, "rows");
  regrow_transpose(rows, pointers, index, 0, rows, 0, columns, by_column, row_of, order);
  regrow_split(rows, pointers, index, width, blocks, split);
  s.forward = (struct sparse){rows, columns, blocks, rows, pointers, split, index, 0};
  s.transposed = (struct sparse){columns, rows, 1, 1, by_column, by_column, row_of, order};
  void *owned[8] = {pointers, index, by_column, row_of, order, split, s.positions, 0};
  memcpy(s.owned, owned, sizeof owned);
  return s;
}

static void release(struct sample *s) {
  for (int i = 0; i < 8; i++) free(s->owned[i]);
}

static void check_linear(int threads) {
  const int64_t rows = 1 + below(40), columns = 1 + below(60), batch = below(200);
  struct sample s = make(rows, columns, uniform() * uniform(), 1 + below(columns));
  float *values = numbers(s.nonzeros), *bias = numbers(rows), *raw = numbers(batch * columns);
  float *x = numbers(columns * batch), *y = numbers(rows * batch), *dx = numbers(columns * batch);
  float *dw = numbers(s.nonzeros), *sums = numbers(rows);
  regrow_pack(batch, columns, raw, columns, 1, x, batch, threads);
  regrow_multiply(&s.forward, values, x, batch, y, batch, 0, batch, bias, 0, threads);
  regrow_multiply(&s.transposed, values, y, batch, dx, columns, 1, batch, 0, 1, threads);
  regrow_dot(&s.forward, dw, x, batch, y, batch, batch, threads);
  regrow_epilogue_backward(rows, batch, y, batch, y, batch, y, batch, sums, threads);
  for (int64_t r = 0; r < rows && batch; r++) {
    const int64_t b = below(batch);
    double expected = bias[r];
    for (int64_t k = 0; k < s.nonzeros; k++)
      if (s.positions[k] / columns == r)
        expected += (double)values[k] * raw[b * columns + s.positions[k] % columns];
    require(near(y[r * batch + b], expected > 0 ? expected : 0), "multiply");
  }
  void *owned[] = {values, bias, raw, x, y, dx, dw, sums};
  for (int i = 0; i < 8; i++) free(owned[i]);
  release(&s);
}

/* 1d convolution, stride `step`, one row of images: scratch offsets as the Python side makes them. */
static void check_conv(int threads) {
  const int64_t channels = 1 + below(6), outputs = 1 + below(6), taps = 1 + below(4);
  const int64_t step = 1 + below(3), low = below(3), width = taps + below(30);
  const int64_t out = (width + 2 * low - taps) / step + 1, batch = 1 + below(40);
  const int64_t phases = taps < step ? taps : step, reach = (taps - 1) / step;
  const int64_t chunk = 16, extent = out + reach;
  struct sample s = make(outputs, channels * taps, 0.5, channels * taps);
  int32_t *offsets = malloc((size_t)(s.nonzeros + 1) * sizeof *offsets);
  for (int64_t k = 0; k < s.nonzeros; k++) {
    const int64_t column = s.positions[k] % (channels * taps), tap = column % taps;
    offsets[k] = (int32_t)((column / taps * phases + tap % step) * extent + tap / step);
  }
  const struct sparse m = {outputs, channels * taps, 1, 1, s.forward.pointers, s.forward.pointers, offsets, 0};
  const struct conv c = {batch, chunk, channels, width * batch, {1, 1, width},
                         {width * batch, width * batch, batch}, {1, 1, step}, {1, 1, phases},
                         {0, 0, low}, {1, 1, extent}, {1, 1, out},
                         {out * batch, out * batch, batch}, out * batch, {1, 1, out}};
  float *values = numbers(s.nonzeros), *x = numbers(channels * width * batch);
  float *y = numbers(outputs * out * batch), *dw = numbers(2 * s.nonzeros);
  require(!regrow_convolve(&c, &m, values, x, y, 0, 0, threads), "memory");
  require(!regrow_convolve_dot(&c, &m, dw, 2, x, y, threads), "memory");
  for (int64_t row = 0; row < outputs; row++) {
    const int64_t b = below(batch), o = below(out);
    double expected = 0;
    for (int64_t k = 0; k < s.nonzeros; k++) {
      const int64_t column = s.positions[k] % (channels * taps);
      const int64_t pixel = o * step + column % taps - low;
      if (s.positions[k] / (channels * taps) == row && pixel >= 0 && pixel < width)
        expected += (double)values[k] * x[(column / taps * width + pixel) * batch + b];
    }
    require(near(y[(row * out + o) * batch + b], expected), "convolve");
  }
  void *owned[] = {offsets, values, x, y, dw};
  for (int i = 0; i < 5; i++) free(owned[i]);
  release(&s);
}

/* A convolution by whole kernels, of two samples, beside the nine products a kernel stands for. */
static void check_planes(int threads) {
  const int64_t channels = 1 + below(40), outputs = 1 + below(9), step = 1 + below(2), width = 16;
  const int64_t step_d = 1 + below(2), high = below(3), low[3] = {below(2), below(3), below(3)};
  int64_t in[3] = {1 + below(4), 3 + below(12), 3 + below(50)}, out[3], n = 2;
  out[0] = (in[0] + 2 * low[0] - 1) / step_d + 1;
  out[1] = (in[1] + 2 * low[1] - 3) / step + 1;
  out[2] = (in[2] + low[2] + high - 3) / step + 1;
  const int64_t plane = in[1] * in[2], image = out[0] * out[1] * out[2];
  struct sample s = make(outputs, channels, uniform(), width);
  const struct planes c = {n, channels, width, {in[0], in[1], in[2]},
                           {channels * in[0] * plane, in[0] * plane, plane, in[2]}, step_d, step,
                           {low[0], low[1], low[2]}, high, {out[0], out[1], out[2]}};
  float *values = numbers(9 * s.nonzeros), *x = numbers(n * channels * in[0] * plane);
  float *y = numbers(n * outputs * image), *bias = numbers(outputs);
  require(!regrow_convolve_planes(&c, &s.forward, values, x, y, bias, 1, threads), "memory");
  for (int64_t check = 0; check < 20; check++) {
    const int64_t b = below(n), row = below(outputs);
    const int64_t at[3] = {below(out[0]), below(out[1]), below(out[2])};
    const int64_t d = at[0] * step_d - low[0];
    double expected = bias[row];
    for (int64_t k = 0; k < s.nonzeros; k++)
      for (int64_t tap = 0; tap < 9 && s.positions[k] / channels == row; tap++) {
        const int64_t h = at[1] * step + tap / 3 - low[1], w = at[2] * step + tap % 3 - low[2];
        if (d < 0 || d >= in[0] || h < 0 || h >= in[1] || w < 0 || w >= in[2]) continue;
        const int64_t channel = b * channels + s.positions[k] % channels;
        expected += (double)values[9 * k + tap] * x[(channel * in[0] + d) * plane + h * in[2] + w];
      }
    const double found = y[(b * outputs + row) * image + (at[0] * out[1] + at[1]) * out[2] + at[2]];
    require(near(found, expected > 0 ? expected : 0), "convolve planes");
  }
  grants = 0;
  require(regrow_convolve_planes(&c, &s.forward, values, x, y, 0, 0, threads), "planes: denied");
  grants = -1;
  free(values), free(x), free(y), free(bias);
  release(&s);
}

static void check_topology(int threads) {
  const int64_t rows = 1 + below(110), columns = 1 + below(70), batch = below(40);
  float *y = numbers(rows * batch), *x = numbers(columns * batch);
  const int64_t capacity = rows * columns;
  int32_t *found = malloc((size_t)(capacity + 1) * sizeof *found);
  float *values = malloc((size_t)(capacity + 1) * sizeof *values);
  const float bound = (float)uniform();
  const int64_t n =
      regrow_above(rows, columns, batch, y, batch, x, batch, bound, capacity, found, values, threads);
  int64_t expected = 0, close = 0;
  for (int64_t p = 0; p < rows * columns; p++) {
    double sum = 0;
    for (int64_t b = 0; b < batch; b++) sum += (double)y[p / columns * batch + b] * x[p % columns * batch + b];
    expected += fabs(sum) > bound;
    close += near(fabs(sum), bound);
  }
  require(llabs(n - expected) <= close, "above");
  for (int64_t k = 1; k < n; k++) require(found[k] > found[k - 1], "above: order");
  require(regrow_above(rows, columns, batch, y, batch, x, batch, 0, 3, found, values, threads) >= 0,
          "above: capacity");
  struct sample a = make(rows, columns, uniform(), columns), b = make(rows, columns, 0.3, columns);
  int32_t *one = malloc((size_t)(a.nonzeros + 1) * sizeof *one);
  int32_t *other = malloc((size_t)(b.nonzeros + 1) * sizeof *other);
  int32_t *merged = malloc((size_t)(a.nonzeros + b.nonzeros + 1) * sizeof *merged);
  uint8_t *bits = calloc((size_t)(rows * columns + 7) / 8, 1);
  regrow_positions(rows, a.forward.pointers, a.forward.index, columns, one);
  regrow_positions(rows, b.forward.pointers, b.forward.index, columns, other);
  for (int64_t k = 0; k < a.nonzeros; k++) require(one[k] == a.positions[k], "positions");
  regrow_merge(a.nonzeros, one, b.nonzeros, other, merged);
  for (int64_t k = 1; k < a.nonzeros + b.nonzeros; k++) require(merged[k] >= merged[k - 1], "merge");
  require(regrow_locate(a.nonzeros, one, a.nonzeros, one, merged) == a.nonzeros, "locate");
  regrow_locate(a.nonzeros, one, b.nonzeros, other, merged);
  regrow_mark(a.nonzeros, one, bits);
  void *owned[] = {y, x, found, values, one, other, merged, bits};
  for (int i = 0; i < 8; i++) free(owned[i]);
  release(&a);
  release(&b);
}

/* Rows that are not a number exceed every bound, zeros beyond the last column do not. */
static void check_not_a_number(int threads) {
  const int64_t rows = 1 + below(110), columns = 1 + below(70), batch = 1 + below(4);
  const int64_t capacity = rows * columns;
  float *y = numbers(rows * batch), *x = numbers(columns * batch);
  for (int64_t i = 0; i < rows * batch; i++) y[i] = NAN;
  int32_t *found = malloc((size_t)capacity * sizeof *found);
  float *values = malloc((size_t)capacity * sizeof *values);
  const int64_t n =
      regrow_above(rows, columns, batch, y, batch, x, batch, 1, capacity, found, values, threads);
  require(n == capacity, "above: not a number");
  for (int64_t k = 0; k < n; k++) require(found[k] == k, "above: where");
  free(y), free(x), free(found), free(values);
}

/* Without memory for scratch space a kernel says so, and frees what it has. */
static void check_memory(void) {
  const int64_t rows = 300, columns = 40, batch = 5;
  struct sample s = make(rows, columns, 0.3, 10);
  float *values = numbers(s.nonzeros), *x = numbers(columns * batch), *y = numbers(rows * batch);
  int32_t *found = malloc((size_t)(rows * columns) * sizeof *found);
  float *large = malloc((size_t)(rows * columns) * sizeof *large);
  for (int denied = 0; denied < 2; denied++) {
    grants = denied;
    require(regrow_multiply(&s.forward, values, x, batch, y, rows, 1, batch, 0, 0, 1), "denied");
    grants = denied;
    require(regrow_above(rows, columns, batch, y, batch, x, batch, 0, rows * columns, found, large,
                         1) < 0,
            "above: denied");
    grants = -1;
    require(!regrow_multiply(&s.forward, values, x, batch, y, rows, 1, batch, 0, 0, 1), "granted");
  }
  free(values), free(x), free(y), free(found), free(large);
  release(&s);
}

static void check_norm(int threads) {
  const int64_t rows = 1 + below(5), n = 1 + below(3000);
  float *x = numbers(rows * n), *g = numbers(rows * n), *y = numbers(rows * n);
  float *small = numbers(6 * rows);
  float *mean = small, *variance = small + rows, *scale = small + 2 * rows;
  regrow_moments(rows, n, x, mean, variance, threads);
  regrow_normalize(rows, n, x, mean, scale, 0, y, threads);
  regrow_normalize_backward(rows, n, g, x, mean, scale, variance, 0, small + 3 * rows,
                            small + 4 * rows, y, threads);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += x[i];
  require(near(mean[0], sum / (double)n), "moments");
  free(x), free(g), free(y), free(small);
}

int main(void) {
  for (int set = 0; set < 4; set++) {
    if (!regrow_use(set)) continue;
    for (int round = 0; round < 150; round++) {
      check_linear(1 + round % 3);
      check_conv(1 + round % 3);
      check_planes(1 + round % 3);
      check_norm(1 + round % 3);
      check_topology(1 + round % 3);
      check_not_a_number(1 + round % 3);
    }
    check_memory();
    printf("%s\n", in_use->name);
  }
  return 0;
}
