// Softmax cross-entropy of rows of v logits: a block to a row, one pass forward, one backward.
//
//     forward    log Σ e^x of the row, its maximum found on the way: when it grows, the sum so far
//                shrinks by e^(old - new)                              (Milakov & Gimelshein 2018)
//     backward   dx = (e^(x - log Σ e^x) - expected) · share · dz
//
// The share of a row in the loss is 1 / n, or 0 where the target is none (-1). Expected is 1 - ε at
// the target, plus ε / v everywhere (ε: label smoothing).

extern "C" __global__ void cross_entropy(
    const T* x, const long long* targets, float* losses, float* log_sums,
    long long v, double share, double epsilon
) {
    x += blockIdx.x * v;
    float most = -1.0f / 0.0f, sum = 0, all = 0;
    for (ROW(j, v)) {
        Pack a = load(x + j);
        float top = most;
        for (EACH(i)) top = fmaxf(top, wide(a.at[i]));
        sum *= __expf(most - top);
        most = top;
        for (EACH(i)) {
            sum += __expf(wide(a.at[i]) - most);
            all += wide(a.at[i]);
        }
    }
    float top = block_max(most);
    sum = block_sum(sum * __expf(most - top));  // of a thread without numbers: 0
    if (epsilon > 0) all = block_sum(all);
    if (threadIdx.x) return;
    float log_sum = top + logf(sum);
    long long target = targets[blockIdx.x];
    float expected = target < 0 ? 0 : (1 - epsilon) * wide(x[target]) + epsilon / v * all;
    losses[blockIdx.x] = target < 0 ? 0 : (log_sum - expected) * share;
    log_sums[blockIdx.x] = log_sum;
}

extern "C" __global__ void cross_entropy_back(
    const T* x, const long long* targets, const float* log_sums, const float* dz, T* dx,
    long long v, double share, double epsilon
) {
    x += blockIdx.x * v;
    dx += blockIdx.x * v;
    float log_sum = log_sums[blockIdx.x], floor = epsilon / v;
    long long target = targets[blockIdx.x];
    float scale = target < 0 ? 0 : *dz * (float)share;
    for (ROW(j, v)) {
        Pack a = load(x + j);
        for (EACH(i)) {
            float p = __expf(wide(a.at[i]) - log_sum) - floor;
            if (j + i == target) p -= 1 - (float)epsilon;
            narrow(p * scale, a.at[i]);
        }
        store(dx + j, a);
    }
}
