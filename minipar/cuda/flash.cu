// Causal attention whose scores never leave the processor (FlashAttention; Dao et al. 2022, 2023).
//
//     scores       keys →                    a block has 64 queries of one head, and goes through
//     queries ↓   [██        ]               the keys that they see, 64 at a time: load the tile
//                 [████      ]  ◄── block    (the next one comes meanwhile), multiply, exp,
//                 [██████    ]               multiply. What it keeps in registers is the output so
//                                            far, and each row's maximum and sum.
//
// The products are made by tensor cores, `mma`: a warp multiplies [16, 16] by [16, 8]. How the
// numbers of a matrix lie in the registers of a warp is fixed (PTX manual, m16n8k16): lane l has of
// a sum [16, 8] the rows l / 4 and l / 4 + 8, columns 2 · (l % 4) and the next. Two such sums, side
// by side, lie as the left factor [16, 16] of the next product must: no lane needs another's.
//
// Backward makes the weights again, from log₂ Σ 2^score. Two kernels do it, one for dq, with blocks
// of queries, and one for dk and dv, with blocks of keys, so that each sum has one owner and one
// order: the same bits each time, for 7 products instead of 5.
//
// qkv is [b, t, 3, h, C], z [b, t, h, C], log_sums and dots [b, h, t]; blockIdx.y is the head,
// blockIdx.z the batch item.

constexpr int C = CHANNELS, TILE = 64;
constexpr int PITCH = C + 8;  // of a row in shared memory: so eight rows lie in different banks
typedef float Sums[4];        // of one lane: what it has of [16, 8]

__device__ unsigned pair(float low, float high, bfloat16) {
    unsigned x;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    return x;
}
__device__ unsigned pair(float low, float high, float16) {
    unsigned x;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    return x;
}

#define MMA(NAME, TYPE)                                                                        \
    __device__ void mma(Sums& z, const unsigned* a, const unsigned* b, TYPE) {                  \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME ".f32 "                      \
            "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                             \
            : "+f"(z[0]), "+f"(z[1]), "+f"(z[2]), "+f"(z[3])                                    \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                \
    }
MMA("bf16", bfloat16)
MMA("f16", float16)

// Four matrices [8, 8], each lane with the address of a row of one of them.
__device__ void read(unsigned* x, const T* row) {
    unsigned at = __cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at));
}
__device__ void read_transposed(unsigned* x, const T* row) {
    unsigned at = __cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at));
}

// Two stages of two tiles: while one is used, the next is on its way. Then two of 2 · 64 floats.
extern __shared__ uint4 memory[];
__device__ T* tile(int stage, int which) {
    return (T*)memory + (stage % 2 * 2 + which) * TILE * PITCH;
}
__device__ float* numbers(int stage, int which) {
    return (float*)tile(0, 4) + (stage % 2 * 2 + which) * TILE;
}

// Send 64 rows of C numbers into shared memory; rows from `count` on become 0.
__device__ void send_tile(T* tile, const T* rows, long long pitch, int count) {
    for (int n = threadIdx.x; n < TILE * C / 8; n += blockDim.x) {
        int row = n / (C / 8), at = n % (C / 8) * 8, bytes = row < count ? 16 : 0;
        unsigned to = __cvta_generic_to_shared(tile + row * PITCH + at);
        const T* from = bytes ? rows + row * pitch + at : rows;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     : : "r"(to), "l"(from), "r"(bytes) : "memory");
    }
}
__device__ void sent() { asm volatile("cp.async.commit_group;" : : : "memory"); }

// Wait for all that was sent, but for the last so many times.
template <int LAST> __device__ void arrived() {
    asm volatile("cp.async.wait_group %0;" : : "n"(LAST) : "memory");
    __syncthreads();
}

// A left factor that stays in registers: the 16 rows of this warp, all channels.
__device__ void keep_rows(unsigned (*a)[4], const T* tile) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    #pragma unroll
    for (int k = 0; k < C / 16; k++)
        read(a[k], tile + (16 * warp + lane % 16) * PITCH + 16 * k + lane / 16 * 8);
}

// z [16, 64] += a [16, C] · tileᵀ
__device__ void times_transposed(Sums* z, const unsigned (*a)[4], const T* tile) {
    int lane = threadIdx.x % 32;
    #pragma unroll
    for (int n = 0; n < TILE / 16; n++)
        #pragma unroll
        for (int k = 0; k < C / 16; k++) {
            unsigned b[4];
            int row = 16 * n + lane / 16 * 8 + lane % 8;
            read(b, tile + row * PITCH + 16 * k + lane / 8 % 2 * 8);
            mma(z[2 * n], a[k], b, T());
            mma(z[2 * n + 1], a[k], b + 2, T());
        }
}

// z [16, C] += weights [16, 64] · tile; the weights are sums of a product before.
__device__ void times(Sums* z, const Sums* weights, const T* tile) {
    int lane = threadIdx.x % 32;
    #pragma unroll
    for (int k = 0; k < TILE / 16; k++) {
        const float *left = weights[2 * k], *right = weights[2 * k + 1];
        unsigned a[4] = {
            pair(left[0], left[1], T()), pair(left[2], left[3], T()),
            pair(right[0], right[1], T()), pair(right[2], right[3], T())
        };
        #pragma unroll
        for (int n = 0; n < C / 16; n++) {
            unsigned b[4];
            read_transposed(b, tile + (16 * k + lane % 16) * PITCH + 16 * n + lane / 16 * 8);
            mma(z[2 * n], a, b, T());
            mma(z[2 * n + 1], a, b + 2, T());
        }
    }
}

// Where this lane's numbers of a sum stand: number i of tile column n is in row row(i), column
// column(n, i).
__device__ int row(int i) { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 * 8; }
__device__ int column(int n, int i) { return 8 * n + threadIdx.x % 4 * 2 + i % 2; }

// The four lanes that share a row.
template <typename Op> __device__ float across_row(float v) {
    v = Op::of(v, __shfl_xor_sync(~0u, v, 1));
    return Op::of(v, __shfl_xor_sync(~0u, v, 2));
}

// rows [.., pitch] of a head = z · factor; rows from `count` on do not exist.
__device__ void write_rows(T* rows, const Sums* z, const float* factor, long long pitch, int count) {
    for (int half = 0; half < 2; half++)
        if (row(2 * half) < count)
            for (int n = 0; n < C / 8; n++) {
                T* at = rows + row(2 * half) * pitch + column(n, 0);
                float f = factor[half];
                *(unsigned*)at = pair(z[n][2 * half] * f, z[n][2 * half + 1] * f, T());
            }
}

__device__ float power2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#define HEAD(x, pitch) ((x) + blockIdx.z * t * (pitch) + blockIdx.y * C)
#define SCALE (rsqrtf(C) * 1.4426950408889634f)  // with it e^x is 2^x, for which there is a circuit

extern "C" __global__ void __launch_bounds__(128) flash(
    const T* qkv, T* z, float* log_sums, long long t, long long h
) {
    long long pitch = 3 * h * C;
    int first = (gridDim.x - 1 - blockIdx.x) * TILE;  // the longest rows begin
    const T *q = HEAD(qkv, pitch), *k = q + h * C, *v = k + h * C;
    const float scale = SCALE;
    unsigned queries[C / 16][4];
    send_tile(tile(1, 0), q + first * pitch, pitch, t - first);
    send_tile(tile(0, 0), k, pitch, t);
    send_tile(tile(0, 1), v, pitch, t);
    sent();
    arrived<0>();
    keep_rows(queries, tile(1, 0));
    Sums out[C / 8] = {};
    float most[2] = {-1.0f / 0.0f, -1.0f / 0.0f}, sum[2] = {0, 0};
    for (int stage = 0; stage * TILE <= first; stage++) {
        int next = (stage + 1) * TILE;
        __syncthreads();  // nobody reads the other stage any more
        if (next <= first) {
            send_tile(tile(stage + 1, 0), k + next * pitch, pitch, t - next);
            send_tile(tile(stage + 1, 1), v + next * pitch, pitch, t - next);
        }
        sent();
        arrived<1>();
        Sums s[TILE / 8] = {};
        times_transposed(s, queries, tile(stage, 0));
        if (next > first)  // on the diagonal
            for (int n = 0; n < TILE / 8; n++) for (int i = 0; i < 4; i++)
                if (column(n, i) > row(i)) s[n][i] = -1.0f / 0.0f;
        for (int half = 0; half < 2; half++) {
            float top = most[half];
            for (int n = 0; n < TILE / 8; n++)
                top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
            top = across_row<Max>(top);
            float shrink = power2((most[half] - top) * scale), down = top * scale;
            most[half] = top;
            sum[half] *= shrink;
            for (int n = 0; n < C / 8; n++) out[n][2 * half] *= shrink, out[n][2 * half + 1] *= shrink;
            for (int n = 0; n < TILE / 8; n++) for (int i = 2 * half; i < 2 * half + 2; i++)
                sum[half] += s[n][i] = power2(s[n][i] * scale - down);
        }
        times(out, s, tile(stage, 1));
    }
    for (int half = 0; half < 2; half++) {
        sum[half] = across_row<Sum>(sum[half]);
        long long at = (blockIdx.z * h + blockIdx.y) * t + first + row(2 * half);
        if (threadIdx.x % 4 == 0 && first + row(2 * half) < t)
            log_sums[at] = most[half] * scale + log2f(sum[half]);
        sum[half] = 1 / sum[half];
    }
    write_rows(HEAD(z, h * C) + first * h * C, out, sum, h * C, t - first);
}

// dots = Σ z·dz of each query: it is Σ p·dp of its row of weights.
extern "C" __global__ void flash_dots(
    const T* z, const T* dz, float* dots, long long rows, long long t, long long h
) {
    long long n = blockIdx.x * (long long)blockDim.x + threadIdx.x;  // [b, t, h]
    if (n >= rows) return;
    float sum = 0;
    for (int j = 0; j < C; j += W) {
        Pack a = load(z + n * C + j), e = load(dz + n * C + j);
        for (EACH(i)) sum += wide(a.at[i]) * wide(e.at[i]);
    }
    long long item = n / (t * h), position = n / h % t, head = n % h;
    dots[(item * h + head) * t + position] = sum;
}

// dq of 64 queries: ds = p · (dp - dots), dp = dz vᵀ, dq = ds k / √C
extern "C" __global__ void __launch_bounds__(128) flash_dq(
    const T* qkv, const T* dz, const float* log_sums, const float* dots, T* dqkv,
    long long t, long long h
) {
    long long pitch = 3 * h * C;
    int first = (gridDim.x - 1 - blockIdx.x) * TILE;
    const T *q = HEAD(qkv, pitch), *k = q + h * C, *v = k + h * C;
    const float scale = SCALE;
    unsigned queries[C / 16][4], up[C / 16][4];
    send_tile(tile(1, 0), q + first * pitch, pitch, t - first);
    send_tile(tile(1, 1), HEAD(dz, h * C) + first * h * C, h * C, t - first);
    send_tile(tile(0, 0), k, pitch, t);
    send_tile(tile(0, 1), v, pitch, t);
    sent();
    arrived<0>();
    keep_rows(queries, tile(1, 0));
    keep_rows(up, tile(1, 1));
    float log_sum[2], dot[2], factor[2] = {rsqrtf(C), rsqrtf(C)};
    for (int half = 0; half < 2; half++) {
        long long at = (blockIdx.z * h + blockIdx.y) * t + first + row(2 * half);
        bool there = first + row(2 * half) < t;
        log_sum[half] = there ? log_sums[at] : 0;
        dot[half] = there ? dots[at] : 0;
    }
    Sums dq[C / 8] = {};
    for (int stage = 0; stage * TILE <= first; stage++) {
        int next = (stage + 1) * TILE;
        __syncthreads();
        if (next <= first) {
            send_tile(tile(stage + 1, 0), k + next * pitch, pitch, t - next);
            send_tile(tile(stage + 1, 1), v + next * pitch, pitch, t - next);
        }
        sent();
        arrived<1>();
        Sums s[TILE / 8] = {}, dp[TILE / 8] = {};
        times_transposed(s, queries, tile(stage, 0));
        times_transposed(dp, up, tile(stage, 1));
        for (int n = 0; n < TILE / 8; n++) for (int i = 0; i < 4; i++) {
            float p = power2(s[n][i] * scale - log_sum[i / 2]);
            s[n][i] = p * (dp[n][i] - dot[i / 2]);
        }
        if (next > first)
            for (int n = 0; n < TILE / 8; n++) for (int i = 0; i < 4; i++)
                if (column(n, i) > row(i)) s[n][i] = 0;
        times(dq, s, tile(stage, 0));
    }
    write_rows(HEAD(dqkv, pitch) + first * pitch, dq, factor, pitch, t - first);
}

// What flash_dkv reads of 64 queries. Those from t on become 0, and so does all that is made of them.
__device__ void send_queries(
    int stage, const T* q, const T* dz, const float* log_sums, const float* dots,
    int query, long long t, long long h
) {
    send_tile(tile(stage, 0), q + query * 3 * h * C, 3 * h * C, t - query);
    send_tile(tile(stage, 1), dz + query * h * C, h * C, t - query);
    if (threadIdx.x < TILE) {
        long long at = (blockIdx.z * h + blockIdx.y) * t + query + threadIdx.x;
        bool there = query + threadIdx.x < t;
        numbers(stage, 0)[threadIdx.x] = there ? log_sums[at] : 0;
        numbers(stage, 1)[threadIdx.x] = there ? dots[at] : 0;
    }
}

// dk and dv of 64 keys: all lies transposed, rows are keys.   dv = pᵀ dz, dk = dsᵀ q / √C
extern "C" __global__ void __launch_bounds__(128) flash_dkv(
    const T* qkv, const T* dz, const float* log_sums, const float* dots, T* dqkv,
    long long t, long long h
) {
    long long pitch = 3 * h * C;
    int first = blockIdx.x * TILE;  // the first keys are seen most often
    const T *q = HEAD(qkv, pitch), *k = q + h * C, *v = k + h * C;
    const float scale = SCALE;
    unsigned keys[C / 16][4], values[C / 16][4];
    send_tile(tile(1, 0), k + first * pitch, pitch, t - first);
    send_tile(tile(1, 1), v + first * pitch, pitch, t - first);
    send_queries(0, q, HEAD(dz, h * C), log_sums, dots, first, t, h);
    sent();
    arrived<0>();
    keep_rows(keys, tile(1, 0));
    keep_rows(values, tile(1, 1));
    Sums dk[C / 8] = {}, dv[C / 8] = {};
    for (int stage = 0; first + stage * TILE < t; stage++) {
        int next = first + (stage + 1) * TILE;
        __syncthreads();
        if (next < t)
            send_queries(stage + 1, q, HEAD(dz, h * C), log_sums, dots, next, t, h);
        sent();
        arrived<1>();
        Sums s[TILE / 8] = {}, dp[TILE / 8] = {};
        times_transposed(s, keys, tile(stage, 0));
        times_transposed(dp, values, tile(stage, 1));
        for (int n = 0; n < TILE / 8; n++) for (int i = 0; i < 4; i++) {
            float p = power2(s[n][i] * scale - numbers(stage, 0)[column(n, i)]);
            if (stage == 0 && row(i) > column(n, i)) p = 0;
            s[n][i] = p;
            dp[n][i] = p * (dp[n][i] - numbers(stage, 1)[column(n, i)]);
        }
        times(dv, s, tile(stage, 1));
        times(dk, dp, tile(stage, 0));
    }
    float one[2] = {1, 1}, factor[2] = {rsqrtf(C), rsqrtf(C)};
    T* into = HEAD(dqkv, pitch) + first * pitch;
    write_rows(into + h * C, dk, factor, pitch, t - first);
    write_rows(into + 2 * h * C, dv, one, pitch, t - first);
}
