// The lowest error that a generator with an InstanceNorm before its tanh can reach: `output_norm_floor` of
// cyclegan_lib/study/floor.py, which says why it is this problem. Here it is solved by two nested searches.
"use strict";
cyclegan.floor = (function () {
  const LARGEST_MEAN = 0.1921;  // that tanh(z) can have if z has mean 0 and variance 1
  const levels = Float64Array.from({length: 256}, (_, k) => k / 127.5 - 1);
  // Each level's best z lies at its own kink, atanh(level), at a stationary point, or far out.
  const kinks = Array.from(levels.subarray(1, 255), Math.atanh);
  const z = Float64Array.from([...kinks, ...Array.from({length: 1201}, (_, i) => (i - 600) / 100)]).sort();
  const tanh = z.map(Math.tanh), kinkAt = kinks.map(kink => z.indexOf(kink));

  /** Values -> the share of each of the 256 levels. */
  function histogram(values) {
    const shares = new Float64Array(256);
    for (const value of values) shares[Math.round((Math.min(Math.max(value, -1), 1) + 1) * 127.5)] += 1 / values.length;
    return shares;
  }

  /** The dual function: for prices alpha of the mean and beta of the variance, no error can be lower than this. */
  function dual(shares, alpha, beta) {
    const vertex = -alpha / (2 * beta), out = Math.max(Math.abs(vertex) - 6, 0) * Math.sign(vertex);
    const far = out ? alpha * vertex + beta * vertex ** 2 : Infinity;
    const left = new Float64Array(z.length), right = new Float64Array(z.length);
    let lowest = out < 0 ? far + 1 : Infinity;  // left of the kink |tanh z - x| is x - tanh z, right of it tanh z - x
    for (let i = 0; i < z.length; i++) left[i] = lowest = Math.min(lowest, alpha * z[i] + beta * z[i] ** 2 - tanh[i]);
    const leftEnd = out > 0 ? Math.min(lowest, far - 1) : lowest;
    lowest = out > 0 ? far + 1 : Infinity;
    for (let i = z.length - 1; i >= 0; i--) {
      right[i] = lowest = Math.min(lowest, alpha * z[i] + beta * z[i] ** 2 + tanh[i]);
    }
    const rightEnd = out < 0 ? Math.min(lowest, far - 1) : lowest;
    let sum = shares[0] * (rightEnd + 1) + shares[255] * (1 + leftEnd);
    for (let k = 1; k < 255; k++) {
      if (shares[k]) sum += shares[k] * Math.min(levels[k] + left[kinkAt[k - 1]], right[kinkAt[k - 1]] - levels[k]);
    }
    return sum - beta;
  }

  /** The highest value of a concave function between two places, by golden section. */
  function highest(f, low, high) {
    const ratio = (Math.sqrt(5) - 1) / 2;
    let a = high - ratio * (high - low), b = low + ratio * (high - low), fa = f(a), fb = f(b);
    for (let i = 0; i < 28; i++) {
      if (fa > fb) [high, b, fb, a] = [b, a, fa, b - ratio * (b - low)], fa = f(a);
      else [low, a, fa, b] = [a, b, fb, a + ratio * (high - a)], fb = f(b);
    }
    return Math.max(fa, fb);
  }

  /** The floor of one channel: its values, from -1 to 1. */
  function of(values) {
    const shares = histogram(values);
    return Math.max(0, highest(alpha => highest(beta => dual(shares, alpha, beta), 1e-7, 1), -1, 1));
  }

  return {LARGEST_MEAN, histogram, of};
})();
