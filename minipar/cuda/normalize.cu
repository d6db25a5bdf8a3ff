// Layer norm and rms norm: one block to a row of d numbers.
//
//     h = (x - mean) / std      z = h · gain + bias      rms norm: mean 0, no bias
//     kept    [mean and 1/std][row]
//     dx = (dh - mean(dh) - h · mean(dh · h)) / std,     dh = dz · gain
//
// A row is read three times, but only the first time from afar: it stays in the L1 cache.

template <bool CENTRED> __device__ void forward(
    const T* x, const T* gain, const T* bias, T* z, float* kept, int d, float eps
) {
    x += blockIdx.x * (long long)d;
    z += blockIdx.x * (long long)d;
    float mean = 0, squares = 0;
    if (CENTRED) {
        for (ROW(j, d)) {
            Pack a = load(x + j);
            for (EACH(i)) mean += wide(a.at[i]);
        }
        mean = block_sum(mean) / d;
    }
    for (ROW(j, d)) {
        Pack a = load(x + j);
        for (EACH(i)) squares += (wide(a.at[i]) - mean) * (wide(a.at[i]) - mean);
    }
    float inverse = rsqrtf(block_sum(squares) / d + eps);
    for (ROW(j, d)) {
        Pack a = load(x + j), g = load(gain + j), b = CENTRED ? load(bias + j) : g;
        for (EACH(i)) {
            float h = (wide(a.at[i]) - mean) * inverse;
            narrow(h * wide(g.at[i]) + (CENTRED ? wide(b.at[i]) : 0), a.at[i]);
        }
        store(z + j, a);
    }
    if (threadIdx.x == 0) {
        kept[blockIdx.x] = mean;
        kept[gridDim.x + blockIdx.x] = inverse;
    }
}

// Each block goes through every so-many-th row. Σ dz·h and Σ dz over its rows grow in shared
// memory: a thread only touches its own columns, so nobody waits. The second index is the first
// one of a pack, so that neighbouring threads meet different banks.
template <bool CENTRED> __device__ void backward(
    const T* dz, const T* x, const T* gain, const float* kept, T* dx, float* sums, int rows, int d
) {
    extern __shared__ float own[];  // [2, W, d / W]
    for (ROW(j, d)) for (int i = 0; i < 2 * W; i++) own[i * (d / W) + j / W] = 0;
    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        const T *dz_row = dz + row * (long long)d, *x_row = x + row * (long long)d;
        float mean = kept[row], inverse = kept[rows + row], total = 0, along = 0;
        for (ROW(j, d)) {
            Pack a = load(x_row + j), e = load(dz_row + j), g = load(gain + j);
            for (EACH(i)) {
                float h = (wide(a.at[i]) - mean) * inverse, up = wide(e.at[i]);
                total += up * wide(g.at[i]);
                along += up * wide(g.at[i]) * h;
                own[i * (d / W) + j / W] += up * h;
                own[(W + i) * (d / W) + j / W] += up;
            }
        }
        float2 means = block_sums(along, total);
        along = means.x / d;
        total = CENTRED ? means.y / d : 0;
        for (ROW(j, d)) {
            Pack a = load(x_row + j), e = load(dz_row + j), g = load(gain + j);
            for (EACH(i)) {
                float h = (wide(a.at[i]) - mean) * inverse;
                narrow((wide(e.at[i]) * wide(g.at[i]) - total - h * along) * inverse, a.at[i]);
            }
            store(dx + row * (long long)d + j, a);
        }
    }
    sums += blockIdx.x * 2LL * d;
    for (ROW(j, d)) for (EACH(i)) {
        sums[j + i] = own[i * (d / W) + j / W];
        sums[d + j + i] = own[(W + i) * (d / W) + j / W];
    }
}

extern "C" __global__ void layer_norm(
    const T* x, const T* gain, const T* bias, T* z, float* kept, long long d, double eps
) {
    forward<true>(x, gain, bias, z, kept, d, eps);
}

extern "C" __global__ void rms_norm(
    const T* x, const T* gain, T* z, float* kept, long long d, double eps
) {
    forward<false>(x, gain, gain, z, kept, d, eps);
}

extern "C" __global__ void layer_norm_back(
    const T* dz, const T* x, const T* gain, const float* kept, T* dx, float* sums,
    long long rows, long long d
) {
    backward<true>(dz, x, gain, kept, dx, sums, rows, d);
}

extern "C" __global__ void rms_norm_back(
    const T* dz, const T* x, const T* gain, const float* kept, T* dx, float* sums,
    long long rows, long long d
) {
    backward<false>(dz, x, gain, kept, dx, sums, rows, d);
}
