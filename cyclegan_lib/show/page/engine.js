// The generator of CycleGAN in plain JavaScript: the same layers as cyclegan_lib/models.py, from the same weights.
// A picture is a Float32Array of 3 planes, each row by row, with values from -1 to 1. It runs in workers as well.
"use strict";
cyclegan.engine = (function () {
  const up8 = number => Math.ceil(number / 8) * 8;  // the kernel computes eight pixels of a row at a time

  const relu = value => (value < 0 ? 0 : value);
  const reflect = (i, length) => (i < 0 ? -i : i >= length ? 2 * length - 2 - i : i);
  const square = side => Array.from({length: side * side}, (_, i) => [Math.floor(i / side), i % side]);

  /** Bits of a 16-bit float -> the number. */
  function half(bits) {
    const exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    return bits & 0x8000 ? -size : size;
  }

  /** The bytes of a .safetensors file -> {facts, tensors: {key: {shape, values}}}. 8-bit weights have a scale. */
  function readSafetensors(bytes, outputNorm) {
    const view = new DataView(bytes.buffer, bytes.byteOffset), length = Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    const read = {
      F32: [4, at => view.getFloat32(at, true)], F16: [2, at => half(view.getUint16(at, true))],
      I8: [1, at => view.getInt8(at)],
    };
    const tensors = {};
    for (const key of Object.keys(header).filter(key => key !== "__metadata__")) {
      const {dtype, shape, data_offsets: [begin, end]} = header[key], [width, number] = read[dtype];
      const values = new Float32Array((end - begin) / width);
      for (let i = 0; i < values.length; i++) values[i] = number(8 + length + begin + i * width);
      tensors[key] = {shape, values};
    }
    for (const key of Object.keys(tensors).filter(key => key.endsWith(".scale"))) {
      const weight = tensors[key.slice(0, -".scale".length)].values, scales = tensors[key].values;
      for (let i = 0; i < weight.length; i++) weight[i] *= scales[Math.floor(i * scales.length / weight.length)];
    }
    return {facts: {...JSON.parse(header.__metadata__.facts), ...(outputNorm && {output_norm: outputNorm})}, tensors};
  }

  /** What engine.wat does, in JavaScript, for browsers without it. */
  function plainKernel(buffer) {
    const floats = new Float32Array(buffer), whole = new Int32Array(buffer);
    return (shifts, count, weights, bias, input, inputRow, output, outputRow, outputPlane, width, height) => {
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          let [a, b, c, d] = floats.subarray(bias >> 2, (bias >> 2) + 4);
          for (let i = 0, w = weights >> 2; i < count; i++, w += 4) {
            const value = floats[((input + y * inputRow + whole[(shifts >> 2) + i]) >> 2) + x];
            a += value * floats[w]; b += value * floats[w + 1]; c += value * floats[w + 2]; d += value * floats[w + 3];
          }
          const to = ((output + y * outputRow) >> 2) + x, plane = outputPlane >> 2;
          [floats[to], floats[to + plane], floats[to + 2 * plane], floats[to + 3 * plane]] = [a, b, c, d];
        }
      }
    };
  }

  /** A memory for planes and weights, and what adds planes up in it: engine.wasm's `module`, or JavaScript. */
  class Machine {
    constructor(module) {
      const pages = 1000;  // of 64 KiB: room for 12 million numbers of networks and planes
      const inside = module && new WebAssembly.Instance(module).exports;
      if (inside) inside.memory.grow(pages - 1);
      this.buffer = inside ? inside.memory.buffer : new ArrayBuffer(pages * 65536);
      this.kernel = inside ? inside.shiftedSums : plainKernel(this.buffer);
      this.memory = new Float32Array(this.buffer);
      this.planesEnd = 0;  // planes fill it from the beginning, anew for every picture
      this.weightsBegin = this.memory.length;  // weights fill it from the end, and stay
    }

    room(length, isForWeights = false) {
      if (isForWeights) this.weightsBegin -= up8(length);
      else this.planesEnd += up8(length);
      if (this.planesEnd > this.weightsBegin) throw new Error("the networks are too large for a page");
      return isForWeights ? this.weightsBegin : this.planesEnd - up8(length);
    }
  }

  class Generator {
    /** `file` as readSafetensors returns it; `name` is "G_AB" or "G_BA". */
    constructor(machine, file, name) {
      Object.assign(this, {machine, memory: machine.memory, tensors: file.tensors, packed: new Map()});
      this.prefix = file.tensors["model.1.bias"] ? "" : name + ".";  // a file with one network names none
      this.hasOutputNorm = file.facts.output_norm === "instance";
      const ofBlocks = key => key.startsWith(this.prefix) && key.endsWith("conv_block.1.bias");
      this.numResidual = Object.keys(file.tensors).filter(ofBlocks).length;
    }

    /** A picture (planes of size × size) -> its translation. Layer by layer as in models.py. */
    forward(picture, size) {
      this.machine.planesEnd = 0;
      const afterBlocks = 10 + this.numResidual;
      let x = this.load(picture, size);
      x = this.normalise(this.convolve(x, "model.1", 7), relu);
      x = this.normalise(this.halve(x, "model.4"), relu);
      x = this.normalise(this.halve(x, "model.7"), relu);
      for (let block = 10; block < afterBlocks; block++) {
        const y = this.normalise(this.convolve(x, `model.${block}.conv_block.1`, 3), relu);
        x = this.add(this.normalise(this.convolve(y, `model.${block}.conv_block.5`, 3)), x);
      }
      x = this.normalise(this.double(x, `model.${afterBlocks}`), relu);
      x = this.normalise(this.double(x, `model.${afterBlocks + 3}`), relu);
      x = this.convolve(x, `model.${afterBlocks + 7}`, 7);
      if (this.hasOutputNorm) this.normalise(x);  // the layer that this page is about
      return this.store(x, Math.tanh);
    }

    /** A stack of planes. Each row has room to spare, for the kernel's eight pixels at a time. */
    planes(channels, height, width) {
      const row = up8(width) + 8, plane = row * height;
      return {at: this.machine.room(channels * plane + 16), channels, height, width, row, plane};
    }

    /** The weights in the order in which the kernel reads them: 4 output channels, a plane, these 4. */
    pack(key, taps, isTransposed) {
      const id = key + taps;
      if (this.packed.has(id)) return this.packed.get(id);
      const {shape, values} = this.tensors[this.prefix + key + ".weight"], side = shape[3];
      const [inputs, outputs] = isTransposed ? shape : [shape[1], shape[0]];
      const count = inputs * taps.length, groups = Math.ceil(outputs / 4);
      const weights = this.machine.room(groups * count * 4, true), bias = this.machine.room(groups * 4, true);
      this.memory.set(this.tensors[this.prefix + key + ".bias"].values, bias);
      for (let o = 0; o < outputs; o++) {
        let to = weights + Math.floor(o / 4) * count * 4 + o % 4;
        for (let i = 0; i < inputs; i++) {
          const from = (isTransposed ? i * outputs + o : o * inputs + i) * side * side;
          for (const [y, x] of taps) this.memory[to] = values[from + y * side + x], to += 4;
        }
      }
      this.packed.set(id, {weights, bias, outputs, count, groups});
      return this.packed.get(id);
    }

    /** A convolution: `taps` are its weights' places (y, x), and `shift(y, x)` says where each reads its plane. */
    sums(input, key, taps, shift, height, width, isTransposed = false) {
      const {weights, bias, outputs, count, groups} = this.pack(key, taps, isTransposed);
      const output = this.planes(groups * 4, height, width), {buffer, kernel} = this.machine;
      const shifts = new Int32Array(buffer, 4 * this.machine.room(count), count);
      let n = 0;
      for (let i = 0; i < input.channels; i++) {
        for (const [y, x] of taps) shifts[n++] = 4 * (i * input.plane + shift(y, x));
      }
      for (let g = 0; g < groups; g++) {
        kernel(shifts.byteOffset, count, 4 * (weights + g * count * 4), 4 * (bias + g * 4), 4 * input.at, 4 * input.row,
          4 * (output.at + g * 4 * output.plane), 4 * output.row, 4 * output.plane, width, height);
      }
      return {...output, channels: outputs};
    }

    /** Planes made of rows and columns of others: which ones, `rowOf` and `columnOf` say; outside are zeros. */
    gather(input, height, width, rowOf, columnOf) {
      const output = this.planes(input.channels, height, width), memory = this.memory;
      const columns = Array.from({length: width}, (_, x) => columnOf(x));
      for (let i = 0; i < input.channels * height; i++) {
        const row = rowOf(i % height), isInside = row >= 0 && row < input.height;
        const from = input.at + Math.floor(i / height) * input.plane + row * input.row, to = this.rowAt(output, i);
        for (let x = 0; x < width; x++) {
          memory[to + x] = isInside && columns[x] >= 0 && columns[x] < input.width ? memory[from + columns[x]] : 0;
        }
      }
      return output;
    }

    /** ReflectionPad2d and Conv2d, kernel 7 or 3. */
    convolve(input, key, side) {
      const {height, width} = input, margin = side >> 1;
      const padded = this.gather(input, height + 2 * margin, width + 2 * margin,
        y => reflect(y - margin, height), x => reflect(x - margin, width));
      return this.sums(padded, key, square(side), (y, x) => y * padded.row + x, height, width);
    }

    /** Conv2d, kernel 3, stride 2, padding 1: even and odd rows and columns become planes of their own. */
    halve(input, key) {
      const height = input.height / 2, width = input.width / 2;
      const split = [0, 1, 2, 3].map(parity => this.gather(input, height + 1, width + 1,
        y => 2 * y + (parity >> 1) - 1, x => 2 * x + (parity & 1) - 1));
      const shift = (y, x) =>
        split[(y & 1) * 2 + (x & 1)].at - split[0].at + (y >> 1) * split[0].row + (x >> 1);
      return this.sums(split[0], key, square(3), shift, height, width);
    }

    /** ConvTranspose2d, kernel 3, stride 2, padding 1, output_padding 1: a small convolution for each parity. */
    double(input, key) {
      const {height, width} = input, memory = this.memory;
      const padded = this.gather(input, height + 1, width + 1, y => y, x => x);
      let output = null;
      for (let parity = 0; parity < 4; parity++) {
        const [down, right] = [parity >> 1, parity & 1];
        const taps = square(3).filter(([y, x]) => y % 2 !== down && x % 2 !== right);
        const shift = (y, x) => (down && y === 0 ? padded.row : 0) + (right && x === 0 ? 1 : 0);
        const part = this.sums(padded, key, taps, shift, height, width, true);
        output = output || this.planes(part.channels, 2 * height, 2 * width);
        for (let c = 0; c < part.channels; c++) {
          for (let y = 0; y < height; y++) {
            const from = part.at + c * part.plane + y * part.row;
            const to = output.at + c * output.plane + (2 * y + down) * output.row + right;
            for (let x = 0; x < width; x++) memory[to + 2 * x] = memory[from + x];
          }
        }
      }
      return output;
    }

    /** InstanceNorm2d, and what comes `after` it, in place. */
    normalise(planes, after = value => value) {
      const memory = this.memory, {channels, height, width, row, plane} = planes;
      for (let c = 0; c < channels; c++) {
        const begin = planes.at + c * plane, end = begin + plane;
        let sum = 0, squares = 0;
        for (let at = begin; at < end; at += row) for (let i = at; i < at + width; i++) sum += memory[i];
        const mean = sum / (height * width);
        for (let at = begin; at < end; at += row) {
          for (let i = at; i < at + width; i++) squares += (memory[i] - mean) ** 2;
        }
        const scale = 1 / Math.sqrt(squares / (height * width) + 1e-5);
        for (let at = begin; at < end; at += row) {
          for (let i = at; i < at + width; i++) memory[i] = after((memory[i] - mean) * scale);
        }
      }
      return planes;
    }

    add(x, y) {
      for (let i = 0; i < x.channels * x.plane; i++) this.memory[x.at + i] += this.memory[y.at + i];
      return x;
    }

    load(picture, size) {
      const planes = this.planes(picture.length / (size * size), size, size);
      for (let i = 0; i < picture.length / size; i++) {
        this.memory.set(picture.subarray(i * size, (i + 1) * size), this.rowAt(planes, i));
      }
      return planes;
    }

    store(planes, activation) {
      const {channels, height, width} = planes, picture = new Float32Array(channels * height * width);
      for (let i = 0; i < channels * height; i++) {
        const at = this.rowAt(planes, i);
        for (let x = 0; x < width; x++) picture[i * width + x] = activation(this.memory[at + x]);
      }
      return picture;
    }

    rowAt(planes, i) {
      return planes.at + Math.floor(i / planes.height) * planes.plane + (i % planes.height) * planes.row;
    }
  }

  /** What a worker does with a message, and the page itself where it may have no worker. */
  function makeTranslator() {
    const files = {}, generators = {};
    let machine = null;
    function translate({wasm, key, norm, bytes, names = [], picture, size}) {
      machine ||= new Machine(wasm && new WebAssembly.Module(wasm));
      if (bytes) files[key] = readSafetensors(bytes, norm);
      return names.map(name => {  // G_AB and then G_BA: there and back
        const generator = generators[key + name] ||= new Generator(machine, files[key], name);
        return picture = generator.forward(picture, size);
      });
    }
    return message => {
      try { return {pictures: translate(message)}; } catch (error) { return {error: String(error)}; }
    };
  }

  /** A translator in a worker: `ask({key, bytes})` brings a network, `ask({key, names, picture, size})` -> Promise. */
  function open() {
    const wasm = typeof WebAssembly === "undefined" ? null : cyclegan.wasm("engine");
    const worker = cyclegan.worker(["common", "engine"]), translate = makeTranslator(), waiting = [];
    const settle = ({pictures, error}) => {
      const [done, failed] = waiting.shift();
      return error ? failed(new Error(error)) : done(pictures);
    };
    if (worker) {
      worker.onmessage = event => settle(event.data);
      worker.onerror = event => { while (waiting.length) settle({error: event.message}); };
    }
    const ask = message => new Promise((done, failed) => {
      waiting.push([done, failed]);
      if (worker) worker.postMessage({wasm, ...message});
      else setTimeout(() => settle(translate({wasm, ...message})));
    });
    return {ask};
  }

  if (typeof document === "undefined") {
    const translate = makeTranslator();
    self.onmessage = event => self.postMessage(translate(event.data));
  }
  return {readSafetensors, Machine, Generator, open};
})();
