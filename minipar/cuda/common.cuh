// What the kernels share: floats of two bytes, wide loads, sums over a block.
//
// T is the float that the arrays hold: float, float16 or bfloat16; sums are made in float.
// W numbers are read and written at once, 16 bytes of them, or one where rows do not divide.
// A row belongs to a block: thread t has the numbers t·W .. t·W + W-1, then those a step further.

struct float16 { unsigned short bits; };
struct bfloat16 { unsigned short bits; };
using T = FLOAT;
constexpr int W = WIDTH;

__device__ float wide(float x) { return x; }
__device__ float wide(bfloat16 x) { return __uint_as_float((unsigned)x.bits << 16); }
__device__ float wide(float16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

__device__ void narrow(float x, float& y) { y = x; }
__device__ void narrow(float x, float16& y) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
__device__ void narrow(float x, bfloat16& y) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }

struct alignas(sizeof(T) * W) Pack { T at[W]; };

__device__ Pack load(const T* x) { return *(const Pack*)x; }
__device__ void store(T* x, Pack pack) { *(Pack*)x = pack; }

#define ROW(j, d) int j = threadIdx.x * W; j < d; j += blockDim.x * W
#define EACH(i) int i = 0; i < W; i++

struct Sum { static __device__ float of(float a, float b) { return a + b; } };
struct Max { static __device__ float of(float a, float b) { return fmaxf(a, b); } };

// One number of all threads of a block, the same in each. Pairs first, then pairs of pairs: the
// order never depends on which warp is faster, so neither does the rounding.
template <typename Op> __device__ float across_warp(float v) {
    for (int far = 16; far; far /= 2) v = Op::of(v, __shfl_xor_sync(~0u, v, far));
    return v;
}

template <typename Op> __device__ float across_block(float v, float neutral) {
    __shared__ float of_warp[32];
    v = across_warp<Op>(v);
    if (blockDim.x == 32) return v;
    __syncthreads();  // whoever still reads the last result
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
    __syncthreads();
    int warp = threadIdx.x % 32;
    return across_warp<Op>(warp < blockDim.x / 32 ? of_warp[warp] : neutral);
}

// Two sums for the price of one.
__device__ float2 block_sums(float a, float b) {
    __shared__ float2 of_warp[32];
    a = across_warp<Sum>(a);
    b = across_warp<Sum>(b);
    if (blockDim.x == 32) return {a, b};
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = {a, b};
    __syncthreads();
    int warp = threadIdx.x % 32;
    float2 v = warp < blockDim.x / 32 ? of_warp[warp] : float2{0, 0};
    return {across_warp<Sum>(v.x), across_warp<Sum>(v.y)};
}

__device__ float block_sum(float v) { return across_block<Sum>(v, 0); }
__device__ float block_max(float v) { return across_block<Max>(v, -1.0f / 0.0f); }
