/* The sum of rkd_angle over the triangles with their vertex in a block, and its slope; angle.py calls it.

   With squared distances d2, the arm from vertex j to sample i has the inverse a_ji = 1 / sqrt(2 d2_ji), or 0 where
   they coincide, and the half b_ji = d2_ji a_ji, so that

       cos(i, j, k) = a_ji (b_jk + a_jk (d2_ji - d2_ik)),

   and Huber's loss h (gap - h / 2), with h = clamp(gap, -delta, delta), has the slopes

       d / d d2_ik = -sum_j h a_ji a_jk,      d / d d2_ji = a_ji sum_k h a_jk - a_ji^2 sum_k h cos(i, j, k).

   One pass over the pairs of ends of each vertex gives all of it. Suffixes: s student, t teacher; i, k rows and columns
   of a pair of ends. REAL is float or double, set on the compiler's command line. */

#include <math.h>
#include <stddef.h>
#include <string.h>

typedef REAL real;

/* All in one function: what a call needs of a row then stays in registers. */
#define INLINE static inline __attribute__((always_inline))

enum {
    BLOCK = 16,  /* Rows of a block. In its own columns a pair comes in both orders. */
    WIDTH = 1024 /* Columns at a time: what a block of rows needs of them stays in the cache for all vertices. */
};

/* The arms of one vertex to all samples, and what their slopes sum up over the other arm. */
typedef struct {
    const real *square_s, *square_t;
    real *inverse_s, *half_s, *inverse_t, *half_t, *product, *cosine;
} Arms;

/* Squared distances of all samples, and the slope in them. */
typedef struct {
    const real *square_s, *square_t;
    real *slope;
} Matrices;

/* One end of pairs: its arms, and where its row of the matrices starts. */
typedef struct {
    real square_s, inverse_s, square_t, inverse_t;
    size_t start;
} Row;

/* The other end: its arms. */
typedef struct {
    real inverse_s, half_s, inverse_t, half_t;
} Column;

/* What one pair adds to the sums. */
typedef struct {
    real loss, product_i, product_k, cosine;
} Terms;

INLINE Row row_of(Arms arms, size_t i, size_t n) {
    const Row row = {arms.square_s[i], arms.inverse_s[i], arms.square_t[i], arms.inverse_t[i], i * n};
    return row;
}

/* The cosine, divided by the inverse of the row's arm. */
INLINE real scaled_cosine(real square_i, real inverse_k, real half_k, real square_ik) {
    return half_k + inverse_k * (square_i - square_ik);
}

/* In this form compilers find the vector instructions for minimum and maximum. */
INLINE real clamped(real gap, real delta) {
    const real low = gap < delta ? gap : delta;
    return low > -delta ? low : -delta;
}

INLINE Column column_of(Arms arms, size_t k) {
    const Column column = {arms.inverse_s[k], arms.half_s[k], arms.inverse_t[k], arms.half_t[k]};
    return column;
}

/* Pairs that come in both orders have weight 1/2, others 1. */
INLINE Terms terms_of(Matrices m, Row row, Column column, size_t k, real weight, real delta) {
    const size_t ik = row.start + k;
    const real scaled_s = scaled_cosine(row.square_s, column.inverse_s, column.half_s, m.square_s[ik]);
    const real scaled_t = scaled_cosine(row.square_t, column.inverse_t, column.half_t, m.square_t[ik]);
    const real gap = row.inverse_s * scaled_s - row.inverse_t * scaled_t, h = clamped(gap, delta);
    const real pull = weight * h, product_k = pull * row.inverse_s;
    m.slope[ik] -= product_k * column.inverse_s;
    const Terms terms = {pull * (gap - (real)0.5 * h), pull * column.inverse_s, product_k, product_k * scaled_s};
    return terms;
}

/* Rows i to i + 3 with columns first to last: four at once, as each needs the same of a column. */
INLINE double add_four_rows(Matrices m, const Row *row, Arms arms, size_t i, size_t first, size_t last,
                            const real *weight, real delta) {
    const Row row0 = row[0], row1 = row[1], row2 = row[2], row3 = row[3];
    real loss = 0, product0 = 0, product1 = 0, product2 = 0, product3 = 0;
    real cosine0 = 0, cosine1 = 0, cosine2 = 0, cosine3 = 0;
#pragma omp simd reduction(+ : loss, product0, product1, product2, product3, cosine0, cosine1, cosine2, cosine3)
    for (size_t k = first; k < last; k++) {
        const Column column = column_of(arms, k);
        const real w = weight[k - first];
        const Terms a = terms_of(m, row0, column, k, w, delta), b = terms_of(m, row1, column, k, w, delta);
        const Terms c = terms_of(m, row2, column, k, w, delta), d = terms_of(m, row3, column, k, w, delta);
        loss += a.loss + b.loss + c.loss + d.loss;
        product0 += a.product_i, product1 += b.product_i, product2 += c.product_i, product3 += d.product_i;
        cosine0 += a.cosine, cosine1 += b.cosine, cosine2 += c.cosine, cosine3 += d.cosine;
        arms.product[k] += a.product_k + b.product_k + c.product_k + d.product_k;
        arms.cosine[k] += a.cosine + b.cosine + c.cosine + d.cosine;
    }
    arms.product[i] += product0, arms.product[i + 1] += product1;
    arms.product[i + 2] += product2, arms.product[i + 3] += product3;
    arms.cosine[i] += cosine0, arms.cosine[i + 1] += cosine1;
    arms.cosine[i + 2] += cosine2, arms.cosine[i + 3] += cosine3;
    return (double)loss;
}

INLINE double add_row(Matrices m, Row row, Arms arms, size_t i, size_t first, size_t last, const real *weight,
                      real delta) {
    real loss = 0, product = 0, cosine = 0;
#pragma omp simd reduction(+ : loss, product, cosine)
    for (size_t k = first; k < last; k++) {
        const Terms a = terms_of(m, row, column_of(arms, k), k, weight[k - first], delta);
        loss += a.loss;
        product += a.product_i;
        cosine += a.cosine;
        arms.product[k] += a.product_k;
        arms.cosine[k] += a.cosine;
    }
    arms.product[i] += product;
    arms.cosine[i] += cosine;
    return (double)loss;
}

INLINE double add_rows(Matrices m, Arms arms, size_t n, size_t start, size_t stop, size_t first, size_t last,
                       const real *weight, real delta) {
    double loss = 0;
    size_t i = start;
    for (; i + 4 <= stop; i += 4) {
        Row row[4];
        for (size_t r = 0; r < 4; r++) row[r] = row_of(arms, i + r, n);
        loss += add_four_rows(m, row, arms, i, first, last, weight, delta);
    }
    for (; i < stop; i++) {
        const Row row = row_of(arms, i, n);
        loss += add_row(m, row, arms, i, first, last, weight, delta);
    }
    return loss;
}

static void measure_arms(size_t n, const real *square, real *inverse, real *half) {
    for (size_t i = 0; i < n; i++) {
        inverse[i] = square[i] > 0 ? 1 / (real)sqrt(2 * square[i]) : 0;
        half[i] = square[i] * inverse[i];
    }
}

/* Sum over vertices first_vertex.. and pairs with their smaller end in rows start..stop, a multiple of BLOCK each or n.

   Adds the slope in the pairs to slope (n x n, upper triangle and blocks on the diagonal). Leaves that in the arms in
   the first num_vertices x n entries of work, which has room for six times as many. Threads share slope if their rows
   do not meet. */
double angle_sum(size_t n, size_t first_vertex, size_t num_vertices, size_t start, size_t stop, real delta,
                 const real *square_s, const real *square_t, real *slope, real *work) {
    const size_t size = num_vertices * n;
    const Matrices m = {square_s, square_t, slope};
    double loss = 0;
    real weight[BLOCK + WIDTH];
    for (size_t k = 0; k < BLOCK + WIDTH; k++) weight[k] = k < BLOCK ? (real)0.5 : 1;
    memset(work, 0, 2 * size * sizeof(real));
    for (size_t v = 0; v < num_vertices; v++) {
        measure_arms(n, square_s + (first_vertex + v) * n, work + 2 * size + v * n, work + 3 * size + v * n);
        measure_arms(n, square_t + (first_vertex + v) * n, work + 4 * size + v * n, work + 5 * size + v * n);
    }
    for (size_t row = start; row < stop; row += BLOCK) {
        const size_t end = row + BLOCK < n ? row + BLOCK : n;
        for (size_t left = row; left < n; left += WIDTH) {
            const size_t right = left + WIDTH < n ? left + WIDTH : n;
            for (size_t v = 0; v < num_vertices; v++) {
                real *const w = work + v * n;
                const size_t start_v = (first_vertex + v) * n;
                const Arms arms = {square_s + start_v, square_t + start_v, w + 2 * size, w + 3 * size,
                                   w + 4 * size,       w + 5 * size,       w,            w + size};
                loss += add_rows(m, arms, n, row, end, left, right, left == row ? weight : weight + BLOCK, delta);
            }
        }
    }
    for (size_t e = 0; e < size; e++) {
        const real inverse = work[2 * size + e];
        work[e] = inverse * work[e] - inverse * inverse * work[size + e];
    }
    return loss;
}
