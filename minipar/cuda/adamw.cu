// One step of AdamW in one pass: the parameters x, their running means m and v, and the copy `low`
// of x that the model computes with. x, m and v are float, g and low are T.
//
//     bytes of an element: x, m and v are read and written, g read, low written

extern "C" __global__ void adamw(
    float* x, const T* g, float* m, float* v, T* low, long long n,
    double scale, double beta1, double beta2, double keep, double rate, double eps
) {
    long long stride = blockDim.x * (long long)gridDim.x;
    for (long long j = blockIdx.x * (long long)blockDim.x + threadIdx.x; j < n; j += stride) {
        float grad = wide(g[j]) * (float)scale;
        float mean = m[j] * (float)beta1 + grad * (float)(1 - beta1);
        float square = v[j] * (float)beta2 + grad * grad * (float)(1 - beta2);
        float y = x[j] * (float)keep - (float)rate * mean / (sqrtf(square) + (float)eps);
        m[j] = mean;
        v[j] = square;
        x[j] = y;
        if (low) narrow(y, low[j]);
    }
}
