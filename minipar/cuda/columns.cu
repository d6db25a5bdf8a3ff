// Sums down the columns of [rows, d], as the gradient of a bias is one, and a bias added.
//
//     block (x, y)       columns 32·W·x ..., lane by lane        rows y, y + gridDim.y, ...
//     its 8 warps        take turns with the rows, and are added up in shared memory
//
// What is left are gridDim.y rows of sums. A second launch with one block down adds those up: the
// same bits each time, which atomic additions would not give.

template <typename In, typename Out, int N>
__device__ void sums(const In* x, Out* out, int rows, int d) {
    struct alignas(sizeof(In) * N) Some { In at[N]; };
    __shared__ float of_warp[8][N][32];
    int lane = threadIdx.x, warp = threadIdx.y, first = (blockIdx.x * 32 + lane) * N;
    float sum[N] = {};
    if (first < d)
        for (int row = blockIdx.y * 8 + warp; row < rows; row += gridDim.y * 8) {
            Some a = *(const Some*)(x + row * (long long)d + first);
            for (int i = 0; i < N; i++) sum[i] += wide(a.at[i]);
        }
    for (int i = 0; i < N; i++) of_warp[warp][i][lane] = sum[i];
    __syncthreads();
    if (warp || first >= d) return;
    for (int i = 0; i < N; i++) {
        for (int w = 1; w < 8; w++) sum[i] += of_warp[w][i][lane];
        narrow(sum[i], out[blockIdx.y * (long long)d + first + i]);
    }
}

extern "C" __global__ void column_sums(const T* x, float* out, long long rows, long long d) {
    sums<T, float, W>(x, out, rows, d);
}

extern "C" __global__ void last_sums(const float* x, T* out, long long rows, long long d) {
    sums<float, T, 1>(x, out, rows, d);
}

extern "C" __global__ void add_bias(T* z, const T* bias, long long d) {  // one block to a row
    z += blockIdx.x * d;
    for (ROW(j, d)) {
        Pack a = load(z + j), b = load(bias + j);
        for (EACH(i)) narrow(wide(a.at[i]) + wide(b.at[i]), a.at[i]);
        store(z + j, a);
    }
}
