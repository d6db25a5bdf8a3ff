// z = x · keep / (1 - p), where keep comes from counting: `random.Draw.keep` says what it is.
//
//     number e of the stream     block e / 8 of Philox4x64-10, which has 4 words of 64 bits:
//                                low and high half of the first, of the second, ...
//
// A thread has one block, so eight numbers. Salmon et al. 2011, section 4.3 (constants: table 3).

typedef unsigned long long word;

__device__ void philox(word c[4], word key0, word key1) {
    for (int round = 0; round < 10; round++) {
        word m0 = 0xD2E7470EE14C6C93, m1 = 0xCA5A826395121157;
        word high0 = __umul64hi(m0, c[0]), low0 = m0 * c[0];
        word high1 = __umul64hi(m1, c[2]), low1 = m1 * c[2];
        c[0] = high1 ^ c[1] ^ key0;
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ key1;
        c[3] = low0;
        key0 += 0x9E3779B97F4A7C15;
        key1 += 0xBB67AE8584CAA73B;
    }
}

extern "C" __global__ void dropout(
    const T* x, T* z, long long n, long long start,
    word key0, word key1, long long step, long long threshold, double scale
) {
    long long block = start / 8 + blockIdx.x * (long long)blockDim.x + threadIdx.x;
    word c[4] = {(word)block + 1, 0, (word)step, 0};  // NumPy counts before it draws
    philox(c, key0, key1);
    for (int half = 0; half < 8; half++) {
        long long j = 8 * block + half - start;
        if (j < 0 || j >= n) continue;
        unsigned number = c[half / 2] >> 32 * (half % 2);
        narrow(number >= threshold ? wide(x[j]) * (float)scale : 0, z[j]);
    }
}
