// What stands between the matrix products of attention, for some heads and some of their queries.
//
//     scores [heads, rows, s], float: q kᵀ / √c of the queries first .. first + rows - 1
//     a warp has a query:  blockIdx.y the head, (blockIdx.x, threadIdx.y) the row, lane by lane
//                          the keys; so there is nothing to wait for
//
// A query at position p sees the keys 0 .. p + ahead, or all if ahead is -1. Where several heads
// share keys, their queries follow each other, and row r stands at position r % period.
// Letters: n queries of a head in all (log_sums is [heads, n]), s keys.

struct alignas(W < 4 ? 4 : 16) Floats { float at[W]; };

#define KEYS(j, s) int j = threadIdx.x * W; j < s; j += 32 * W

// weights = softmax(scores), 0 for keys that are not seen;   log_sums = log Σ e^score.
// The maximum is found on the way: when it grows, the sum so far shrinks by e^(old - new).
extern "C" __global__ void softmax(
    const float* scores, T* weights, float* log_sums,
    long long first, long long period, long long ahead, long long rows, long long s, long long n
) {
    long long row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    int seen = ahead < 0 ? s : (first + row) % period + ahead + 1;
    scores += (blockIdx.y * rows + row) * s;
    weights += (blockIdx.y * rows + row) * s;
    float most = -1.0f / 0.0f, sum = 0;
    for (KEYS(j, seen)) {
        Floats a = *(const Floats*)(scores + j);
        float top = most;
        for (EACH(i)) if (j + i < seen) top = fmaxf(top, a.at[i]);
        sum *= __expf(most - top);
        for (EACH(i)) if (j + i < seen) sum += __expf(a.at[i] - top);
        most = top;
    }
    float top = across_warp<Max>(most);
    float log_sum = top + __logf(across_warp<Sum>(sum * __expf(most - top)));
    for (KEYS(j, s)) {
        Floats a = *(const Floats*)(scores + j);
        Pack p;
        for (EACH(i)) narrow(j + i < seen ? __expf(a.at[i] - log_sum) : 0, p.at[i]);
        store(weights + j, p);
    }
    if (threadIdx.x == 0) log_sums[blockIdx.y * n + first + row] = log_sum;
}

// p, the weights again, and ds = p · (dp - Σ p·dp): of the scores, from dp, that of the weights.
extern "C" __global__ void softmax_back(
    const float* scores, const float* dp, const float* log_sums, T* weights, T* ds,
    long long first, long long period, long long ahead, long long rows, long long s, long long n
) {
    long long row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    int seen = ahead < 0 ? s : (first + row) % period + ahead + 1;
    long long begin = (blockIdx.y * rows + row) * s;
    float log_sum = log_sums[blockIdx.y * n + first + row], along = 0;
    for (KEYS(j, seen)) {
        Floats a = *(const Floats*)(scores + begin + j), e = *(const Floats*)(dp + begin + j);
        for (EACH(i)) if (j + i < seen) along += __expf(a.at[i] - log_sum) * e.at[i];
    }
    along = across_warp<Sum>(along);
    for (KEYS(j, s)) {
        Floats a = *(const Floats*)(scores + begin + j), e = *(const Floats*)(dp + begin + j);
        Pack p, d;
        for (EACH(i)) {
            float weight = j + i < seen ? __expf(a.at[i] - log_sum) : 0;
            narrow(weight, p.at[i]);
            narrow(j + i < seen ? weight * (e.at[i] - along) : 0, d.at[i]);
        }
        store(weights + begin + j, p);
        store(ds + begin + j, d);
    }
}
