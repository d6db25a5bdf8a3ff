// Sums down the columns of [rows, d], as the gradient of a bias is one, and a bias added.
//
//     block (x, y)       columns 32·W·x ..., lane by lane        rows y, y + gridDim.y, ...
//     its warps          take turns with the rows, and are added up in shared memory
//
// What is left are gridDim.y rows of sums. Another launch with one block down adds those up: the
// same bits each time, which atomic additions would not give.

template <typename In, typename Out, int N, int WARPS>
__device__ void sums(const In* x, Out* out, int rows, int d) {
    struct alignas(sizeof(In) * N) Some { In at[N]; };
    __shared__ float of_warp[WARPS][N][32];
    int lane = threadIdx.x, warp = threadIdx.y, first = (blockIdx.x * 32 + lane) * N;
    float sum[N] = {};
    if (first < d)
        #pragma unroll 4
        for (int row = blockIdx.y * WARPS + warp; row < rows; row += gridDim.y * WARPS) {
            Some a = *(const Some*)(x + row * (long long)d + first);
            for (int i = 0; i < N; i++) sum[i] += wide(a.at[i]);
        }
    for (int i = 0; i < N; i++) of_warp[warp][i][lane] = sum[i];
    for (int half = WARPS / 2; half; half /= 2) {
        __syncthreads();
        if (warp < half)
            for (int i = 0; i < N; i++) of_warp[warp][i][lane] += of_warp[warp + half][i][lane];
    }
    if (warp || first >= d) return;
    for (int i = 0; i < N; i++)
        narrow(of_warp[0][i][lane], out[blockIdx.y * (long long)d + first + i]);
}

extern "C" __global__ void column_sums(const T* x, float* out, long long rows, long long d) {
    sums<T, float, W, 8>(x, out, rows, d);
}

extern "C" __global__ void few_sums(const T* x, T* out, long long rows, long long d) {
    sums<T, T, 1, 32>(x, out, rows, d);
}

extern "C" __global__ void last_sums(const float* x, T* out, long long rows, long long d) {
    sums<float, T, 1, 32>(x, out, rows, d);
}

extern "C" __global__ void add_bias(T* z, const T* bias, long long d) {  // one block to a row
    z += blockIdx.x * d;
    for (ROW(j, d)) {
        Pack a = load(z + j), b = load(bias + j);
        for (EACH(i)) narrow(wide(a.at[i]) + wide(b.at[i]), a.at[i]);
        store(z + j, a);
    }
}
