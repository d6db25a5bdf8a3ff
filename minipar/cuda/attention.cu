// What stands between the matrix products of attention, for some heads and some of their queries.
//
//     scores [heads, n, s], float: q kᵀ / √c of n queries that begin with query `first`
//     block (row, head)            one query; causal: it sees the keys up to its own place
//
// `period` is the number of positions: where several heads share keys, their queries follow each
// other in one long list, and query row stands at position row % period.

struct alignas(W < 4 ? 4 : 16) Floats { float at[W]; };

__device__ Floats load_floats(const float* x) { return *(const Floats*)x; }

__device__ int visible(long long first, long long period, long long ahead, long long s) {
    return ahead < 0 ? s : min(s, (first + blockIdx.x) % period + ahead + 1);
}

// weights = softmax(scores) over the visible keys, 0 elsewhere;   log_sums = log Σ e^score.
// ahead: how many keys lie before position 0's own; -1 if all are visible.
extern "C" __global__ void softmax(
    const float* scores, T* weights, float* log_sums,
    long long first, long long period, long long ahead, long long s, long long rows
) {
    long long row = blockIdx.y * (long long)gridDim.x + blockIdx.x;
    int seen = visible(first, period, ahead, s);
    scores += row * s;
    weights += row * s;
    float most = -1.0f / 0.0f, sum = 0;
    for (ROW(j, seen)) {
        Floats a = load_floats(scores + j);
        for (EACH(i)) if (j + i < seen) most = fmaxf(most, a.at[i]);
    }
    most = block_max(most);
    for (ROW(j, seen)) {
        Floats a = load_floats(scores + j);
        for (EACH(i)) if (j + i < seen) sum += __expf(a.at[i] - most);
    }
    float log_sum = most + __logf(block_sum(sum));
    for (ROW(j, s)) {
        Floats a = load_floats(scores + j);
        Pack p;
        for (EACH(i)) narrow(j + i < seen ? __expf(a.at[i] - log_sum) : 0, p.at[i]);
        store(weights + j, p);
    }
    if (threadIdx.x == 0) log_sums[blockIdx.y * rows + first + blockIdx.x] = log_sum;
}

// p, the weights again, and ds = p · (dp - Σ p·dp): of the scores, from dp, that of the weights.
extern "C" __global__ void softmax_back(
    const float* scores, const float* dp, const float* log_sums, T* weights, T* ds,
    long long first, long long period, long long ahead, long long s, long long rows
) {
    long long row = blockIdx.y * (long long)gridDim.x + blockIdx.x;
    int seen = visible(first, period, ahead, s);
    float log_sum = log_sums[blockIdx.y * rows + first + blockIdx.x], along = 0;
    scores += row * s;
    dp += row * s;
    for (ROW(j, seen)) {
        Floats a = load_floats(scores + j), e = load_floats(dp + j);
        for (EACH(i)) if (j + i < seen) along += __expf(a.at[i] - log_sum) * e.at[i];
    }
    along = block_sum(along);
    for (ROW(j, s)) {
        Floats a = load_floats(scores + j), e = load_floats(dp + j);
        Pack p, d;
        for (EACH(i)) {
            float weight = j + i < seen ? __expf(a.at[i] - log_sum) : 0;
            narrow(weight, p.at[i]);
            narrow(j + i < seen ? weight * (e.at[i] - along) : 0, d.at[i]);
        }
        store(weights + row * s + j, p);
        store(ds + row * s + j, d);
    }
}
