// What is done to all parameters of a model: one launch, where blockIdx.y is the parameter and the
// blocks along x share out its numbers.
//
//     x, m, v are float, the gradient g and the copy `low` of x that the model computes with are T;
//     bytes of a number in a step of AdamW: x, m and v read and written, g read, low written

struct Slot { float* x; T* g; float *m, *v; T* low; long long n; double keep; };

#define NUMBERS(j, n) \
    long long j = blockIdx.x * (long long)blockDim.x + threadIdx.x; \
    j < n; \
    j += gridDim.x * (long long)blockDim.x

extern "C" __global__ void adamw(
    const Slot* slots, double scale, double beta1, double beta2, double rate, double eps
) {
    Slot s = slots[blockIdx.y];
    float keep = s.keep, from_m = 1 - beta1, from_v = 1 - beta2;
    for (NUMBERS(j, s.n)) {
        float grad = wide(s.g[j]) * (float)scale;
        float mean = s.m[j] * (float)beta1 + grad * from_m;
        float square = s.v[j] * (float)beta2 + grad * grad * from_v;
        float x = s.x[j] * keep - (float)rate * mean / (sqrtf(square) + (float)eps);
        s.m[j] = mean;
        s.v[j] = square;
        s.x[j] = x;
        if (s.low) narrow(x, s.low[j]);
    }
}

extern "C" __global__ void squares(const Slot* slots, double* sums) {  // Σ g² of each block
    Slot s = slots[blockIdx.y];
    float sum = 0;
    for (NUMBERS(j, s.n)) sum += wide(s.g[j]) * wide(s.g[j]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

extern "C" __global__ void scale(const Slot* slots, double factor) {
    Slot s = slots[blockIdx.y];
    for (NUMBERS(j, s.n)) narrow(wide(s.g[j]) * (float)factor, s.g[j]);
}
