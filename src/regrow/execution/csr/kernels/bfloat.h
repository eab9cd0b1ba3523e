/* Looking through a product in bfloat16, twice as fast where the machine has its instructions.
 *
 * Rounding both factors changes a product by at most 2^-8 |y| |x| (plus less than 2^-14 of that for
 * sums in float32): what comes that near the bound is computed again in float32. So what is found is
 * what float32 finds. */

typedef uint32_t pair __attribute__((may_alias)); /* two neighbouring samples */
enum { SLACK = 252 };                             /* the margin is |y| |x| / SLACK > |y| |x| / 2^8 */

static INLINE uint32_t bfloat_of(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return v != v ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static INLINE float to_bfloats(const float *v, int64_t n, pair *out, int64_t stride) {
  float squares = 0;
  for (int64_t b = 0; b < n; b += 2) {
    const float first = v[b], second = b + 1 < n ? v[b + 1] : 0;
    out[b / 2 * stride] = bfloat_of(first) | bfloat_of(second) << 16;
    squares += first * first + second * second;
  }
  return sqrtf(squares);
}

/* A panel ends with the largest magnitude of its columns. */
static void bfloat_pack_panel(const struct outer *o, int64_t p) {
  float *panel = o->panels + p * o->panel, largest = 0;
  for (int64_t j = 0; j < 32; j++) {
    const int64_t column = p * 32 + j;
    pair *to = (pair *)panel + j;
    if (column < o->columns) {
      const float norm = to_bfloats(o->x + column * o->ldx, o->batch, to, 32);
      largest = norm <= largest ? largest : norm; /* not a number is larger */
    } else {
      for (int64_t b = 0; b < o->batch; b += 2) to[b / 2 * 32] = 0;
    }
  }
  panel[o->panel - 1] = largest;
}

static INLINE __attribute__((target("avx512f,avx512bf16,avx2,fma"))) void bfloat_above_n(
    const struct outer *o, const float *panel, const pair *y, const float *norms, int64_t row,
    int64_t column, struct found *found, const int height) {
  __m512 sum[12][2];
  UNROLL for (int r = 0; r < height; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
  const int64_t pairs = (o->batch + 1) / 2;
  for (int64_t b = 0; b < pairs; b++) {
    const __m512bh left = (__m512bh)_mm512_loadu_ps(panel + b * 32);
    const __m512bh right = (__m512bh)_mm512_loadu_ps(panel + b * 32 + 16);
    UNROLL for (int r = 0; r < height; r++) {
      /* Two neighbouring samples of one row, for all columns. */
      const __m512bh factor = (__m512bh)_mm512_set1_epi32((int)y[r * pairs + b]);
      sum[r][0] = _mm512_dpbf16_ps(sum[r][0], left, factor);
      sum[r][1] = _mm512_dpbf16_ps(sum[r][1], right, factor);
    }
  }
  /* The largest error that rounding can have made of any product with this panel. */
  const float margin = panel[o->panel - 1] / SLACK;
  UNROLL for (int r = 0; r < height; r++)
    for (int half = 0; half < 2; half++) {
      const __m512 limit = _mm512_set1_ps(o->bound - margin * norms[r]);
      uint32_t near = _mm512_cmp_ps_mask(_mm512_abs_ps(sum[r][half]), limit, _CMP_NLE_UQ);
      for (; near; near &= near - 1) {
        const int64_t c = column + half * 16 + __builtin_ctz(near);
        if (c >= o->columns) break;
        const float *a = o->y + (row + r) * o->ldy, *b = o->x + c * o->ldx;
        __m512 total = _mm512_setzero_ps();
        int64_t i = 0;
        for (; i + 16 <= o->batch; i += 16)
          total = _mm512_fmadd_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i), total);
        float value = _mm512_reduce_add_ps(total);
        for (; i < o->batch; i++) value += a[i] * b[i];
        value = value < 0 ? -value : value;
        if (value <= o->bound) continue;
        found->row[found->count] = (int32_t)(row + r);
        found->column[found->count] = (int32_t)c;
        found->value[found->count++] = value;
      }
    }
}

static __attribute__((target("avx512f,avx512bf16,avx2,fma"))) void bfloat_above(
    const struct outer *o, int64_t row, int64_t end, struct found *found) {
  const int64_t pairs = (o->batch + 1) / 2;
  pair *y = (pair *)found->scratch;
  float norms[12];
  for (int64_t r = row; r < end;) {
    const int height = end - r >= 12 ? 12 : 1;
    for (int i = 0; i < height; i++)
      norms[i] = to_bfloats(o->y + (r + i) * o->ldy, o->batch, y + i * pairs, 1);
    for (int64_t p = 0; p * 32 < o->columns; p++) {
      const float *panel = o->panels + p * o->panel;
      if (height == 12) bfloat_above_n(o, panel, y, norms, r, p * 32, found, 12);
      else bfloat_above_n(o, panel, y, norms, r, p * 32, found, 1);
    }
    r += height;
  }
}
