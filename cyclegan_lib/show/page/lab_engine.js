// The engine of the CycleGAN Lab: pictures of three pixels, four small networks, their losses and updates.
// The same settings give the same bits in every browser, with WebAssembly and without it: all numbers are doubles, each
// sum has one order, and tanh and the random numbers, in which browsers differ, are made here.
// All numbers of a model lie in one array, `memory`; networks and batches are places in it. A batch is stored row by
// row: a row for each pixel or unit, a column for each picture. The number of columns is divisible by 8.
"use strict";
cyclegan.labEngine = (function () {
  const PIXELS = 3, HIDDEN = 16, SLOPE = 0.2, PILE = 256, KEPT_FAKES = 50;  // slope: of the leaky ReLU
  const EPSILON = 1e-5, BETA_1 = 0.5, BETA_2 = 0.999;                       // of the norm; of Adam, as in the paper

  /** Random numbers: a function that returns the next one, spread evenly from 0 to 1 (the generator mulberry32). */
  function seeded(seed) {
    let state = Math.imul(seed + 1, 0x9E3779B1);
    return function () {
      state = (state + 0x6D2B79F5) | 0;
      let bits = Math.imul(state ^ (state >>> 15), 1 | state);
      bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
      return ((bits ^ (bits >>> 14)) >>> 0) / 4294967296;
    };
  }

  /** Nearly a normal number, mean 0 and variance 1: the sum of twelve even ones. It needs no logarithm or cosine. */
  function normal(random) {
    let sum = -6;
    for (let i = 0; i < 12; i++) sum += random();
    return sum;
  }

  const POWERS = Array.from({length: 64}, (_, k) => 2 ** k);

  /** tanh from e^2x = 2^k e^r, with a Taylor polynomial for e^r: right to 3e-16. */
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

  /** A pile of pictures [liquid, wall, table]. `share` of the walls follow the liquid: light in A, dark in B. */
  function makePile(domain, seed, share) {
    const random = seeded(10 * seed + (domain === "A" ? 0 : 1)), pile = [];
    while (pile.length < PILE) {
      const liquid = (domain === "A" ? -0.6 : 0.6) + 0.07 * normal(random);
      const follows = random() < share, wall = 0.8 * random();
      pile.push([liquid, follows === (domain === "A") ? wall : -wall, -0.5 + 0.7 * random()]);
    }
    return pile;
  }

  /** The loops that take the time. lab.wat has the same three, two columns at a time. */
  function plainKernels(memory) {
    return {
      // y = w x + b for each column; what is negative is multiplied by slope.
      forward(x, w, b, y, inputs, outputs, n, slope) {
        for (let o = 0; o < outputs; o++, y += n) {
          memory.fill(memory[b + o], y, y + n);
          for (let i = 0; i < inputs; i++) {
            const weight = memory[w + o * inputs + i], row = x + i * n;
            for (let c = 0; c < n; c++) memory[y + c] += weight * memory[row + c];
          }
          for (let c = y; c < y + n; c++) memory[c] *= memory[c] > 0 ? 1 : slope;
        }
      },
      // dx = transposed w times g for each column, times slope where x is not positive.
      backward(g, w, x, dx, inputs, outputs, n, slope) {
        for (let i = 0; i < inputs; i++, x += n, dx += n) {
          memory.fill(0, dx, dx + n);
          for (let o = 0; o < outputs; o++) {
            const weight = memory[w + o * inputs + i], row = g + o * n;
            for (let c = 0; c < n; c++) memory[dx + c] += weight * memory[row + c];
          }
          for (let c = 0; c < n; c++) memory[dx + c] *= memory[x + c] > 0 ? 1 : slope;
        }
      },
      // dw += g times transposed x, and db += the sum of g. Four partial sums each, as the other kernel has.
      gradients(g, x, dw, db, inputs, outputs, n) {
        for (let o = 0; o < outputs; o++, g += n) {
          for (let i = -1; i < inputs; i++) {  // -1: the bias, as if its input were 1
            let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
            for (let c = g, at = x + i * n; c < g + n; c += 4, at += 4) {
              s0 += memory[c] * (i < 0 ? 1 : memory[at]); s1 += memory[c + 1] * (i < 0 ? 1 : memory[at + 1]);
              s2 += memory[c + 2] * (i < 0 ? 1 : memory[at + 2]); s3 += memory[c + 3] * (i < 0 ? 1 : memory[at + 3]);
            }
            memory[i < 0 ? db + o : dw + o * inputs + i] += (s0 + s2) + (s1 + s3);
          }
        }
      },
    };
  }

  /** [memory, kernels]: of WebAssembly from these bytes; of JavaScript where there are none, or they do not run. */
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
      if (kept.length < KEPT_FAKES) return kept[kept.push(fake) - 1];
      if (random() < 0.5) return fake;
      const place = Math.floor(random() * KEPT_FAKES), old = kept[place];
      kept[place] = fake;
      return old;
    };
  }

  /**
   * A CycleGAN and its world. settings: seed, batch (divisible by 8), piles {A, B}, large (true: the first weights are
   * those of notebook 03; false: drawn as PyTorch does it). To be changed at any time: cycle, identity (their weights
   * lambda), adversarial, buffer, norm (true or false), lrG, lrD, fault ("", "swapped" or "frozen": D never learns).
   * bytes: of lab.wasm, or null.
   */
  function makeEngine(settings, bytes) {
    const [memory, kernels] = makeKernels(bytes), n = settings.batch, size = PIXELS * n;
    let free = 0;
    const take = count => (free += count) - count;
    const dealRandom = seeded(10 * settings.seed + 2), bufferRandom = seeded(10 * settings.seed + 3);

    /** A network: the places of its parameters, their gradients, and Adam's two moments. */
    function makeNetwork(outputs, number) {
      const sizes = [PIXELS, HIDDEN, HIDDEN, outputs], random = seeded(10 * settings.seed + 4 + number), layers = [];
      let count = 0;
      for (let l = 0; l < 3; l++) {
        layers.push([count, count + sizes[l] * sizes[l + 1], sizes[l], sizes[l + 1]]);
        count += (sizes[l] + 1) * sizes[l + 1];
      }
      const net = {layers, count, at: take(count), grad: take(count), first: take(count), second: take(count)};
      for (const [w, b, inputs, out] of layers) {
        for (let i = w; i < b + out; i++) {
          if (!settings.large) memory[net.at + i] = Math.sqrt(1 / inputs) * (2 * random() - 1);
          else if (i < b) memory[net.at + i] = Math.sqrt(1.5 / inputs) * normal(random);
        }
      }
      return net;
    }
    const G_AB = makeNetwork(PIXELS, 0), G_BA = makeNetwork(PIXELS, 1);
    const D_A = makeNetwork(1, 2), D_B = makeNetwork(1, 3), networks = {G_AB, G_BA, D_A, D_B};

    /** Places for a batch on its way through a network: what each layer gets, what comes out, and its picture. */
    function makePass(columns) {
      const rows = [HIDDEN, HIDDEN, PIXELS].map(count => take(count * columns));
      return {columns, acts: [0, ...rows], picture: take(PIXELS * columns), scale: take(columns)};
    }

    /** Send the batch at x through a network. Returns the place of what comes out. */
    function forward(net, pass, x) {
      pass.acts[0] = x;
      net.layers.forEach(([w, b, inputs, outputs], l) => kernels.forward(pass.acts[l], net.at + w, net.at + b,
        pass.acts[l + 1], inputs, outputs, pass.columns, l < 2 ? SLOPE : 1));
      return pass.acts[3];
    }

    /** The same for a generator: then the norm, where there is one, and tanh. Returns the place of the pictures. */
    function translate(net, pass, x) {
      const z = forward(net, pass, x), columns = pass.columns;
      pass.norm = settings.norm;
      for (let c = 0; c < columns; c++) {
        const z0 = z + c, z1 = z0 + columns, z2 = z1 + columns, y = pass.picture + c;
        if (pass.norm) {
          const mean = (memory[z0] + memory[z1] + memory[z2]) / 3;
          const d0 = memory[z0] - mean, d1 = memory[z1] - mean, d2 = memory[z2] - mean;
          const scale = memory[pass.scale + c] = 1 / Math.sqrt((d0 * d0 + d1 * d1 + d2 * d2) / 3 + EPSILON);
          memory[z0] = d0 * scale; memory[z1] = d1 * scale; memory[z2] = d2 * scale;
        }
        [z0, z1, z2].forEach((z, p) => { memory[y + p * columns] = tanh(memory[z]); });
      }
      return pass.picture;
    }

    const spare = [take(HIDDEN * n), take(HIDDEN * n)], dz = take(size), dfake = take(size), dcycle = take(size);

    /** Back through a network, from g, the gradient of what came out. learn: add to the gradients of its weights.
        dx: the place for the gradient of the pictures that went in, or -1. */
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
      const z = pass.acts[3];
      for (let c = 0; c < n; c++) {
        let mean = 0, along = 0;
        for (let i = c; i < size; i += n) {
          const y = memory[pass.picture + i], g = memory[dz + i] = memory[dy + i] * (1 - y * y);
          mean += g / 3;
          along += g * memory[z + i] / 3;
        }
        // The norm takes two directions out of the gradient: "all pixels brighter" and "more contrast".
        for (let i = c; pass.norm && i < size; i += n) {
          memory[dz + i] = memory[pass.scale + c] * (memory[dz + i] - mean - memory[z + i] * along);
        }
      }
      backward(net, pass, dz, true, dx);
    }

    /** The mean |x - y| of two batches; its gradient, times weight, goes to dx. */
    function meanDifference(x, y, weight, dx) {
      let sum = 0;
      for (let i = 0; i < size; i++) {
        const difference = memory[x + i] - memory[y + i];
        sum += Math.abs(difference);
        memory[dx + i] = Math.sign(difference) * weight / size;
      }
      return sum / size;
    }

    /** The mean (score - target)² of a batch; its gradient, times weight, takes the place of the scores. */
    function meanSquare(scores, target, weight) {
      let sum = 0;
      for (let i = scores; i < scores + n; i++) {
        const difference = memory[i] - target;
        sum += difference * difference;
        memory[i] = 2 * weight * difference / n;
      }
      return sum / n;
    }

    /** Adam, as PyTorch has it. Powers of beta are kept by multiplying, since pow differs among browsers. */
    function makeAdam(nets) {
      let power1 = 1, power2 = 1;
      return function update(lr) {
        power1 *= BETA_1;
        power2 *= BETA_2;
        const step = lr / (1 - power1), root = Math.sqrt(1 - power2);
        for (const {count, at, grad, first, second} of nets) {
          for (let i = 0; i < count; i++) {
            const g = memory[grad + i], m = memory[first + i] = BETA_1 * memory[first + i] + (1 - BETA_1) * g;
            const v = memory[second + i] = BETA_2 * memory[second + i] + (1 - BETA_2) * g * g;
            memory[at + i] -= step * m / (Math.sqrt(v) / root + 1e-8);
          }
        }
      };
    }
    const updateG = makeAdam([G_AB, G_BA]), updateD = makeAdam([D_A, D_B]);

    const clear = (...nets) => nets.forEach(net => memory.fill(0, net.grad, net.grad + net.count));
    const column = (place, c) => [0, 1, 2].map(p => memory[place + p * n + c]);
    const put = (picture, place, c) => { for (let p = 0; p < PIXELS; p++) memory[place + p * n + c] = picture[p]; };
    const real = {A: take(size), B: take(size)}, shown = take(size), losses = {};
    // The two directions: `there` maps `from` to `to`, `back` returns, `D` scores what `there` made.
    const ways = [
      {from: "A", to: "B", there: G_AB, back: G_BA, D: D_B},
      {from: "B", to: "A", there: G_BA, back: G_AB, D: D_A},
    ];
    for (const way of ways) {
      for (const name of ["fake", "rec", "idt", "score", "scoreReal"]) way[name] = makePass(n);
      way.buffer = makeBuffer(bufferRandom);
    }
    const engine = {settings, memory, networks, losses, real, step: 0};

    /** The next batch: pictures of both piles, at random. */
    engine.deal = function () {
      for (const domain of ["A", "B"]) {
        const pile = settings.piles[domain];
        for (let c = 0; c < n; c++) put(pile[Math.floor(dealRandom() * pile.length)], real[domain], c);
      }
    };

    /** The generators' losses on this batch, and the gradients of their weights. The discriminators do not learn. */
    engine.generatorGradients = function () {
      const swapped = settings.fault === "swapped";  // a caller that took the two losses in the wrong order
      const weight = swapped ? settings.cycle : 1, lambda = swapped ? 1 : settings.cycle;
      clear(G_AB, G_BA);
      losses.adversarial = losses.identity = 0;
      for (const {from, to, there, back, D, fake, rec, idt, score} of ways) {
        translate(there, fake, real[from]);
        translate(back, rec, fake.picture);
        const scores = forward(D, score, fake.picture), first = memory[scores];
        losses.adversarial += meanSquare(scores, 1, settings.adversarial ? weight : 0) / 2;
        backward(D, score, scores, false, dfake);
        losses["cycle_" + from] = meanDifference(rec.picture, real[from], lambda, dcycle);
        backwardPicture(back, rec, dcycle, dcycle);
        // What the slow motion shows: the first picture of the batch, and what pushes its fake.
        engine["first_" + from] = {score: first, fromD: column(dfake, 0), fromCycle: column(dcycle, 0),
          real: column(real[from], 0), fake: column(fake.picture, 0), rec: column(rec.picture, 0)};
        for (let i = 0; i < size; i++) memory[dfake + i] += memory[dcycle + i];
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
      for (const {to, D, fake, score, scoreReal, buffer} of ways) {
        for (let c = 0; c < n; c++) {
          const made = column(fake.picture, c);
          put(settings.buffer ? buffer(made) : made, shown, c);
        }
        const onReal = forward(D, scoreReal, real[to]), onFake = forward(D, score, shown);
        losses.loss_D += (meanSquare(onReal, 1, 0.5) + meanSquare(onFake, 0, 0.5)) / 4;
        backward(D, scoreReal, onReal, true, -1);
        backward(D, score, onFake, true, -1);
      }
    };

    engine.updateGenerators = () => updateG(settings.lrG);
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

    const look = take(PIXELS * 1024), lookPass = makePass(1024);

    /** What a network makes of at most 1024 pictures. It changes nothing of the training. */
    function lookAt(run, net, pictures) {
      const columns = lookPass.columns = Math.ceil(pictures.length / 8) * 8;
      pictures.forEach((picture, c) => picture.forEach((value, p) => { memory[look + p * columns + c] = value; }));
      const out = run(net, lookPass, look);
      return pictures.map((_, c) => [0, 1, 2].map(p => memory[out + p * columns + c]));
    }
    engine.translations = (name, pictures) => lookAt(translate, networks[name], pictures);
    engine.scores = (name, pictures) => lookAt(forward, networks[name], pictures).map(rows => rows[0]);

    /** What became of walls and liquids of a pile on the way to the other, as shares: [kept, inverted, lost, right]. */
    engine.answerKey = function (from) {
      const pile = settings.piles[from], other = settings.piles[from === "A" ? "B" : "A"];
      const target = other.reduce((sum, picture) => sum + picture[0], 0) / other.length;
      const fakes = engine.translations(from === "A" ? "G_AB" : "G_BA", pile);
      const share = (list, test) => list.filter(test).length / Math.max(1, list.length);
      // Walls near grey are not counted: there kept and inverted look alike.
      const walls = pile.map((picture, i) => [picture[1], fakes[i][1]]).filter(([before]) => Math.abs(before) >= 0.3);
      const kept = share(walls, ([before, after]) => Math.abs(after - before) < 0.3);
      const inverted = share(walls, ([before, after]) => Math.abs(after + before) < 0.3);
      return [kept, inverted, Math.max(0, 1 - kept - inverted), share(fakes, fake => Math.abs(fake[0] - target) < 0.3)];
    };

    /** Eight letters, others as soon as any weight differs in any bit. */
    engine.fingerprint = function () {
      let hash = 0x811C9DC5;
      for (const {at, count} of Object.values(networks)) {
        const bits = new Uint32Array(memory.slice(at, at + count).buffer);
        for (const part of bits) hash = Math.imul(hash ^ part, 0x01000193);
      }
      return (hash >>> 0).toString(16).padStart(8, "0");
    };
    return engine;
  }

  return {makeEngine, makePile, makeBuffer, seeded, tanh};
})();
