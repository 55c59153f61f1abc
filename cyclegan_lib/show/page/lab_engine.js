// The engine of the CycleGAN Lab: a world of three-pixel pictures, four small networks, their losses and updates.
//
// The same settings give the same bits in every browser, with and without WebAssembly: all numbers are doubles, every
// sum has one order, and tanh and the random numbers, in which browsers differ, are made here.
//
// All numbers of a model lie in one array, `memory`; a network or a batch is a place in it. A batch is stored row by
// row: a row for each pixel or unit, a column for each picture. The number of columns is divisible by 8.
(function () {
  "use strict";
  const PIXELS = 3, HIDDEN = 16, SLOPE = 0.2;  // slope: of the leaky ReLU
  const EPSILON = 1e-5;                        // of the norm, as in PyTorch
  const BETA_1 = 0.5, BETA_2 = 0.999;          // Adam, as in the paper
  const PILE = 256, LIQUID = 0.6, WALL = 0.8, KEPT_FAKES = 50;

  /** Random numbers: a function that returns the next one, evenly spread from 0 to 1 (mulberry32, 2^32 values). */
  function seeded(seed) {
    let state = Math.imul(seed + 1, 0x9E3779B1);
    return function () {
      state = (state + 0x6D2B79F5) | 0;
      let bits = Math.imul(state ^ (state >>> 15), 1 | state);
      bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
      return ((bits ^ (bits >>> 14)) >>> 0) / 4294967296;
    };
  }

  /** Nearly a normal number, mean 0 and variance 1: the sum of twelve even ones. No logarithm, no cosine. */
  function normal(random) {
    let sum = -6;
    for (let i = 0; i < 12; i++) sum += random();
    return sum;
  }

  const POWERS = new Float64Array(64);  // of 2
  POWERS.forEach((_, i) => { POWERS[i] = i ? 2 * POWERS[i - 1] : 1; });

  /** tanh by e^2x = 2^k e^r, with a Taylor polynomial for e^r: within 3e-16. */
  function tanh(x) {
    const y = Math.abs(2 * x);
    if (!(y < 40)) return x > 0 ? 1 : x < 0 ? -1 : x;
    const k = Math.floor(y * 1.4426950408889634 + 0.5);
    const r = y - k * 0.6931471803691238 - k * 1.9082149292705877e-10;  // log 2 in two parts
    let sum = 1;
    for (let i = 14; i > 0; i--) sum = 1 + sum * r / i;
    const result = 1 - 2 / (POWERS[k] * sum + 1);
    return x < 0 ? -result : result;
  }

  /** A pile of pictures, an array of [liquid, wall, table]. `share` of the walls follow the liquid: light over A's. */
  function makePile(domain, seed, share) {
    const random = seeded(10 * seed + (domain === "A" ? 0 : 1)), pile = [];
    while (pile.length < PILE) {
      const liquid = (domain === "A" ? -LIQUID : LIQUID) + 0.07 * normal(random);
      const follows = random() < share, wall = WALL * random();
      pile.push([liquid, follows === (domain === "A") ? wall : -wall, -0.5 + 0.7 * random()]);
    }
    return pile;
  }

  // The loops that take the time. lab.wat has the same three, two columns at a time.
  function plainKernels(memory) {
    return {
      /** y = w x + b for each column; what is negative is multiplied by slope. */
      forward(x, w, b, y, inputs, outputs, n, slope) {
        for (let o = 0; o < outputs; o++) {
          for (let column = 0; column < n; column++) {
            let sum = memory[b + o];
            for (let i = 0; i < inputs; i++) sum += memory[w + o * inputs + i] * memory[x + i * n + column];
            memory[y + o * n + column] = sum > 0 ? sum : slope * sum;
          }
        }
      },
      /** dx = transposed w times g for each column, times slope where x is not positive. */
      backward(g, w, x, dx, inputs, outputs, n, slope) {
        for (let i = 0; i < inputs; i++) {
          for (let column = 0; column < n; column++) {
            let sum = 0;
            for (let o = 0; o < outputs; o++) sum += memory[w + o * inputs + i] * memory[g + o * n + column];
            memory[dx + i * n + column] = sum * (memory[x + i * n + column] > 0 ? 1 : slope);
          }
        }
      },
      /** dw += g times transposed x, and db += the sum of g. In four partial sums, which the other kernel needs. */
      gradients(g, x, dw, db, inputs, outputs, n) {
        for (let o = 0; o < outputs; o++) {
          for (let i = -1; i < inputs; i++) {  // -1: the bias, as if its input were 1
            let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
            for (let column = 0; column < n; column += 4) {
              const from = g + o * n + column, at = x + i * n + column;
              s0 += memory[from] * (i < 0 ? 1 : memory[at]);
              s1 += memory[from + 1] * (i < 0 ? 1 : memory[at + 1]);
              s2 += memory[from + 2] * (i < 0 ? 1 : memory[at + 2]);
              s3 += memory[from + 3] * (i < 0 ? 1 : memory[at + 3]);
            }
            memory[i < 0 ? db + o : dw + o * inputs + i] += (s0 + s2) + (s1 + s3);
          }
        }
      },
    };
  }

  /** [memory, kernels]: of WebAssembly from these bytes, or of JavaScript where there are none or they do not run. */
  function makeKernels(bytes) {
    try {
      const {memory, ...kernels} = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports;
      return [new Float64Array(memory.buffer), kernels];
    } catch (error) {
      const memory = new Float64Array(1 << 19);
      return [memory, plainKernels(memory)];
    }
  }

  /** Past fakes for a discriminator: half of the new ones are exchanged for old ones (cyclegan_lib/losses.py). */
  function makeBuffer(random) {
    const kept = [];
    return function swap(fake) {
      if (kept.length < KEPT_FAKES) {
        kept.push(fake);
        return fake;
      }
      if (random() < 0.5) return fake;
      const place = Math.floor(random() * KEPT_FAKES), old = kept[place];
      kept[place] = fake;
      return old;
    };
  }

  /**
   * A CycleGAN and its world. settings: seed, batch (divisible by 8), piles {A, B},
   * large (the first weights: as in notebook 03 if true, else as PyTorch draws them); and, to be changed at any time,
   * cycle, identity (the weights λ), adversarial, buffer, norm (true or false), lrG, lrD, fault ("", "swapped", "frozen").
   */
  function makeEngine(settings, bytes) {
    const [memory, kernels] = makeKernels(bytes), n = settings.batch;
    let free = 0;
    const take = count => (free += count) - count;
    const drawBatch = seeded(10 * settings.seed + 2), bufferRandom = seeded(10 * settings.seed + 3);

    /** A network: the places of its layers' weights (outputs x inputs) and biases; as many gradients and moments. */
    function makeNetwork(outputs, number) {
      const sizes = [PIXELS, HIDDEN, HIDDEN, outputs], random = seeded(10 * settings.seed + 4 + number);
      const count = sizes.slice(1).reduce((sum, size, l) => sum + size * (sizes[l] + 1), 0);
      const net = {sizes, count, at: take(count), grad: take(count), first: take(count), second: take(count), layers: []};
      let place = 0;
      for (let l = 0; l < 3; l++) {
        const weights = sizes[l] * sizes[l + 1], wide = Math.sqrt(1.5 / sizes[l]), even = Math.sqrt(1 / sizes[l]);
        net.layers.push([place, place + weights, sizes[l], sizes[l + 1]]);
        for (let i = 0; i < weights + sizes[l + 1]; i++) {
          if (!settings.large) memory[net.at + place + i] = even * (2 * random() - 1);
          else if (i < weights) memory[net.at + place + i] = wide * normal(random);
        }
        place += weights + sizes[l + 1];
      }
      return net;
    }
    const G_AB = makeNetwork(PIXELS, 0), G_BA = makeNetwork(PIXELS, 1);
    const D_A = makeNetwork(1, 2), D_B = makeNetwork(1, 3), networks = {G_AB, G_BA, D_A, D_B};

    /** Places for a batch on its way through a network: what each layer gets, what comes out, and its picture. */
    function makePass(columns) {
      const rows = [HIDDEN, HIDDEN, PIXELS].map(size => take(size * columns));
      return {columns, acts: [0, ...rows], picture: take(PIXELS * columns), scale: take(columns)};
    }

    /** Send the batch at x through a network. Returns the place of what comes out. */
    function forward(net, pass, x) {
      pass.acts[0] = x;
      net.layers.forEach(([w, b, inputs, outputs], l) => kernels.forward(pass.acts[l], net.at + w, net.at + b,
        pass.acts[l + 1], inputs, outputs, pass.columns, l < 2 ? SLOPE : 1));
      return pass.acts[3];
    }

    /** The same for a generator, with the norm or without, and tanh. Returns the place of the pictures. */
    function translate(net, pass, x) {
      const z = forward(net, pass, x), columns = pass.columns;
      pass.norm = settings.norm;
      for (let c = 0; c < columns; c++) {
        const z0 = z + c, z1 = z0 + columns, z2 = z1 + columns;
        if (pass.norm) {
          const mean = (memory[z0] + memory[z1] + memory[z2]) / 3;
          const d0 = memory[z0] - mean, d1 = memory[z1] - mean, d2 = memory[z2] - mean;
          const scale = 1 / Math.sqrt((d0 * d0 + d1 * d1 + d2 * d2) / 3 + EPSILON);
          memory[z0] = d0 * scale; memory[z1] = d1 * scale; memory[z2] = d2 * scale;
          memory[pass.scale + c] = scale;
        }
        memory[pass.picture + c] = tanh(memory[z0]);
        memory[pass.picture + columns + c] = tanh(memory[z1]);
        memory[pass.picture + 2 * columns + c] = tanh(memory[z2]);
      }
      return pass.picture;
    }

    const spare = [take(HIDDEN * n), take(HIDDEN * n)], dz = take(PIXELS * n);

    /** Back through a network, from g, the gradient of what came out. `learn`: add to the gradients of its weights.
        dx: where the gradient of the pictures that went in shall be, or -1. */
    function backward(net, pass, g, learn, dx) {
      for (let l = 2; l >= 0; l--) {
        const [w, b, inputs, outputs] = net.layers[l], into = l ? spare[l - 1] : dx;
        if (learn) kernels.gradients(g, pass.acts[l], net.grad + w, net.grad + b, inputs, outputs, n);
        if (into >= 0) kernels.backward(g, net.at + w, pass.acts[l], into, inputs, outputs, n, l ? SLOPE : 1);
        g = into;
      }
    }

    /** The same for a generator, from the gradient of its pictures. */
    function backwardPicture(net, pass, dy, dx) {
      for (let c = 0; c < n; c++) {
        const at = [c, c + n, c + 2 * n];
        let mean = 0, along = 0;
        for (const i of at) {
          const y = memory[pass.picture + i], g = memory[dy + i] * (1 - y * y);
          memory[dz + i] = g;
          mean += g / 3;
          along += g * memory[pass.acts[3] + i] / 3;
        }
        // The norm takes two directions out of the gradient: all pixels together, and the picture's own contrast.
        if (pass.norm) {
          for (const i of at) {
            memory[dz + i] = memory[pass.scale + c] * (memory[dz + i] - mean - memory[pass.acts[3] + i] * along);
          }
        }
      }
      backward(net, pass, dz, true, dx);
    }

    /** The mean |x - y| of two batches; its gradient, times weight, goes to dx, or is added to what is there. */
    function meanDifference(x, y, weight, dx) {
      let sum = 0;
      for (let i = 0; i < PIXELS * n; i++) {
        const difference = memory[x + i] - memory[y + i];
        sum += Math.abs(difference);
        memory[dx + i] = Math.sign(difference) * weight / (PIXELS * n);
      }
      return sum / (PIXELS * n);
    }

    /** The mean (score - target)² of a batch's scores; its gradient, times weight, goes to `scores` itself. */
    function meanSquare(scores, target, weight) {
      let sum = 0;
      for (let i = scores; i < scores + n; i++) {
        const difference = memory[i] - target;
        sum += difference * difference;
        memory[i] = 2 * weight * difference / n;
      }
      return sum / n;
    }

    /** Adam, as PyTorch writes it. The powers of beta are kept by multiplying, since pow differs among browsers. */
    function makeAdam(nets) {
      let power1 = 1, power2 = 1;
      return function update(lr) {
        power1 *= BETA_1;
        power2 *= BETA_2;
        const step = lr / (1 - power1), root = Math.sqrt(1 - power2);
        for (const {count, at, grad, first, second} of nets) {
          for (let i = 0; i < count; i++) {
            const g = memory[grad + i], m = BETA_1 * memory[first + i] + (1 - BETA_1) * g;
            const v = BETA_2 * memory[second + i] + (1 - BETA_2) * g * g;
            memory[first + i] = m;
            memory[second + i] = v;
            memory[at + i] -= step * m / (Math.sqrt(v) / root + 1e-8);
          }
        }
      };
    }
    const updateG = makeAdam([G_AB, G_BA]), updateD = makeAdam([D_A, D_B]);

    const clear = (...nets) => nets.forEach(net => memory.fill(0, net.grad, net.grad + net.count));
    const real = {A: take(PIXELS * n), B: take(PIXELS * n)}, shown = take(PIXELS * n);
    const dfake = take(PIXELS * n), dcycle = take(PIXELS * n);
    // The two directions: `there` maps `from` to `to`, `back` returns, `judge` looks at what `there` made.
    const ways = [
      {from: "A", to: "B", there: G_AB, back: G_BA, judge: D_B},
      {from: "B", to: "A", there: G_BA, back: G_AB, judge: D_A},
    ];
    for (const way of ways) {
      for (const name of ["fake", "rec", "idt", "score", "scoreReal"]) way[name] = makePass(n);
      way.buffer = makeBuffer(bufferRandom);
    }
    const losses = {};
    const engine = {settings, memory, networks, losses, step: 0};

    /** Deal the next batch: pictures of both piles, at random. */
    engine.deal = function () {
      for (const domain of ["A", "B"]) {
        const pile = settings.piles[domain];
        for (let c = 0; c < n; c++) {
          const picture = pile[Math.floor(drawBatch() * pile.length)];
          for (let p = 0; p < PIXELS; p++) memory[real[domain] + p * n + c] = picture[p];
        }
      }
    };

    /** The generators' losses on this batch, and the gradients of their weights. The discriminators are frozen. */
    engine.generatorGradients = function () {
      const swapped = settings.fault === "swapped";  // a caller that took the two losses in the wrong order
      const weight = swapped ? settings.cycle : 1, lambda = swapped ? 1 : settings.cycle;
      clear(G_AB, G_BA);
      losses.adversarial = losses.identity = 0;
      for (const {from, to, there, back, judge, fake, rec, idt, score} of ways) {
        translate(there, fake, real[from]);
        translate(back, rec, fake.picture);
        const scores = forward(judge, score, fake.picture);
        losses.adversarial += meanSquare(scores, 1, settings.adversarial ? weight : 0) / 2;
        backward(judge, score, scores, false, dfake);
        losses["cycle_" + from] = meanDifference(rec.picture, real[from], lambda, dcycle);
        backwardPicture(back, rec, dcycle, dcycle);
        for (let i = 0; i < PIXELS * n; i++) memory[dfake + i] += memory[dcycle + i];
        backwardPicture(there, fake, dfake, -1);
        if (settings.identity > 0) {
          translate(there, idt, real[to]);
          losses.identity += meanDifference(idt.picture, real[to], settings.identity, dcycle) / 2;
          backwardPicture(there, idt, dcycle, -1);
        }
      }
    };

    /** The discriminators' loss on this batch and on new and past fakes, and the gradients of their weights. */
    engine.discriminatorGradients = function () {
      clear(D_A, D_B);
      losses.loss_D = 0;
      for (const {to, judge, fake, score, scoreReal, buffer} of ways) {
        for (let c = 0; c < n; c++) {
          const made = [0, 1, 2].map(p => memory[fake.picture + p * n + c]);
          const picture = settings.buffer ? buffer(made) : made;
          for (let p = 0; p < PIXELS; p++) memory[shown + p * n + c] = picture[p];
        }
        const onReal = forward(judge, scoreReal, real[to]), onFake = forward(judge, score, shown);
        losses.loss_D += (meanSquare(onReal, 1, 0.5) + meanSquare(onFake, 0, 0.5)) / 4;
        backward(judge, scoreReal, onReal, true, -1);
        backward(judge, score, onFake, true, -1);
      }
    };

    engine.updateGenerators = function () {
      updateG(settings.lrG);
    };

    /** The end of a step. */
    engine.updateDiscriminators = function () {
      if (settings.fault !== "frozen") updateD(settings.lrD);
      engine.step++;
    };

    /** One step of CycleGAN, as in cyclegan_lib/cyclegan.py. */
    engine.train = function () {
      engine.deal();
      engine.generatorGradients();
      engine.updateGenerators();
      engine.discriminatorGradients();
      engine.updateDiscriminators();
    };

    // To look at a model: pictures in, pictures or scores out. Nothing of the training changes.
    const look = take(PIXELS * 1024), lookPass = makePass(1024);
    function through(run, net, pictures) {
      const found = [];
      for (let start = 0; start < pictures.length; start += 1024) {
        const some = pictures.slice(start, start + 1024), columns = Math.ceil(some.length / 8) * 8;
        lookPass.columns = columns;
        memory.fill(0, look, look + PIXELS * columns);
        some.forEach((picture, c) => picture.forEach((value, p) => { memory[look + p * columns + c] = value; }));
        const out = run(net, lookPass, look);
        some.forEach((_, c) => found.push([0, 1, 2].map(p => memory[out + p * columns + c])));
      }
      return found;
    }
    engine.translations = (name, pictures) => through(translate, networks[name], pictures);
    engine.scores = (name, pictures) => through(forward, networks[name], pictures).map(rows => rows[0]);

    /** Eight letters that differ where any weight differs in any bit. */
    engine.fingerprint = function () {
      let hash = 0x811C9DC5;
      for (const {at, count} of Object.values(networks)) {
        for (const part of new Uint32Array(memory.slice(at, at + count).buffer)) hash = Math.imul(hash ^ part, 0x01000193);
      }
      return (hash >>> 0).toString(16).padStart(8, "0");
    };
    return engine;
  }

  cyclegan.engine = {makeEngine, makePile, seeded, normal, tanh};
})();
