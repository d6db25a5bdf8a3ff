// A bias and the gelu behind it (tanh form), forward and backward, one pass each over [n, o].
//
//     y = product + bias     w = (1 + tanh u) / 2,  u = √(2/π) (y + 0.044715 y³)     z = y · w
//     dy = dz · (w + z · (1 - w) · 2 du/dy)
//
// 2w - 1 = tanh u, so w = 1 / (1 + e^-2u). Backward computes w once more: that costs nothing beside
// the memory, and saves keeping the slope.

#define SCALE 0.7978845608028654f
#define CUBIC 0.044715f

__device__ float weight(float y) {
    return 1 / (1 + __expf(-2 * SCALE * (y + CUBIC * y * y * y)));
}

__device__ float slope(float y) {
    float w = weight(y);
    return w + y * w * (1 - w) * 2 * SCALE * (1 + 3 * CUBIC * y * y);
}

extern "C" __global__ void gelu(const T* y, const T* bias, T* z, long long o) {  // a block to a row
    y += blockIdx.x * o;
    z += blockIdx.x * o;
    for (ROW(j, o)) {
        Pack a = load(y + j), b = bias ? load(bias + j) : Pack{};
        for (EACH(i)) {
            float sum = wide(a.at[i]) + wide(b.at[i]);
            narrow(sum * weight(sum), a.at[i]);
        }
        store(z + j, a);
    }
}

extern "C" __global__ void gelu_back(
    const T* dz, const T* y, const T* bias, T* dy, long long o
) {
    long long row = blockIdx.x * o;
    for (ROW(j, o)) {
        Pack a = load(y + row + j), e = load(dz + row + j), b = bias ? load(bias + j) : Pack{};
        for (EACH(i)) narrow(wide(e.at[i]) * slope(wide(a.at[i]) + wide(b.at[i])), a.at[i]);
        store(dy + row + j, a);
    }
}
