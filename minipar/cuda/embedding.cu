// table[id] = Σ of the rows that have this id, in the order in which they came.
//
//     ids, sorted    1  1  │  3  3  3        order: where each stood before the sorting
//     block          does the run that begins at its place, or nothing
//
// The 8 warps take turns with the rows of a run, and are added up in shared memory.

extern "C" __global__ void sum_runs(
    const long long* ids, const long long* order, const T* rows, T* table, long long m, long long d
) {
    long long begin = blockIdx.x, id = ids[begin], end = m, low = begin;
    if (begin && ids[begin - 1] == id) return;
    while (end - low > 1) {  // ids[low] == id < ids[end]
        long long middle = (low + end) / 2;
        if (ids[middle] == id) low = middle; else end = middle;
    }
    __shared__ float of_warp[8][W][32];
    int lane = threadIdx.x, warp = threadIdx.y, first = (blockIdx.y * 32 + lane) * W;
    float sum[W] = {};
    if (first < d)
        #pragma unroll 4
        for (long long at = begin + warp; at < end; at += 8) {
            Pack a = load(rows + order[at] * d + first);
            for (EACH(i)) sum[i] += wide(a.at[i]);
        }
    for (EACH(i)) of_warp[warp][i][lane] = sum[i];
    __syncthreads();
    if (warp || first >= d) return;
    Pack total;
    for (EACH(i)) {
        for (int w = 1; w < 8; w++) sum[i] += of_warp[w][i][lane];
        narrow(sum[i], total.at[i]);
    }
    store(table + id * d + first, total);
}
