// The drawn glass, as cyclegan_lib/water2wine/scenes.py draws it: the same scene, the same picture (a test compares).
// Lengths are fractions of the picture's side, y points down, colours are RGB from 0 to 1.
"use strict";
cyclegan.scene = (function () {
  const TILT = 0.14, SUPERSAMPLING = 2;
  const WATER = [0.66, 0.85, 0.97], WATER_SURFACE = [0.86, 0.95, 1], WHITE = [1, 1, 1], BLACK = [0, 0, 0];
  const WINE = [0.30, 0.01, 0.07], WINE_THIN = [0.66, 0.06, 0.17], WINE_RIM = [0.90, 0.45, 0.52];
  const clip = (value, low, high) => Math.min(Math.max(value, low), high);
  const share = value => clip(value, 0, 1);
  const mix = (a, b, amount) => a.map((value, c) => value + amount * (b[c] - value));

  function hsv(hue, saturation, value) {
    return [5, 3, 1].map(n => {
      const k = (n + 6 * hue) % 6;
      return value * (1 - saturation * Math.max(0, Math.min(k, 4 - k, 1)));
    });
  }

  /** A scene in the middle of the picture: brightness 0 to 1, tint -1 (blue) to 1 (orange), light -1 (left) or 1. */
  function arrange({brightness = 0.8, tint = 0, glass = "tumbler", fill = 0.65, liquid = "water", light = 1}) {
    const wall = hsv(tint > 0 ? 0.08 : 0.6, 0.6 * Math.abs(tint), brightness);
    const [height, radius] = glass === "tumbler" ? [0.53, 0.33] : [0.66, 0.275];
    return {
      liquid, glass, fill, light, height, radius, x: 0.5, foot_y: 0.88, highlight: 0.85, table_y: 0.72,
      background_top: wall, background_bottom: wall.map(value => 0.95 * value), table: hsv(0.075, 0.55, 0.46),
    };
  }

  /** A scene -> its picture: 3 planes of size × size, from -1 to 1. */
  function render(scene, size) {
    const pixels = size * SUPERSAMPLING, pixel = 1 / pixels, room = [];
    for (let row = 0; row < pixels; row++) {
      for (let column = 0; column < pixels; column++) {
        room.push(drawRoom(scene, (column + 0.5) * pixel, (row + 0.5) * pixel, pixel));
      }
    }
    const glass = makeGlass(scene), picture = new Float32Array(3 * size * size).fill(-1);
    const weight = 2 / SUPERSAMPLING ** 2;
    for (let row = 0; row < pixels; row++) {
      const rowOfGlass = glass((row + 0.5) * pixel);
      for (let column = 0; column < pixels; column++) {
        const behind = room[row * pixels + column], upsideDown = room[(pixels - 1 - row) * pixels + column];
        const colour = drawGlass(scene, rowOfGlass((column + 0.5) * pixel), behind, upsideDown, pixel);
        const at = Math.floor(row / SUPERSAMPLING) * size + Math.floor(column / SUPERSAMPLING);
        for (let c = 0; c < 3; c++) picture[c * size * size + at] += weight * colour[c];
      }
    }
    return picture;
  }

  /** Signed distance to an edge (inside is negative) -> the share of the pixel that is covered. */
  const cover = (distance, pixel) => share(0.5 - distance / pixel);

  /** A line along the edge; thinner than a pixel means fainter. */
  function line(distance, width, pixel) {
    const drawn = Math.max(width, pixel);
    return cover(Math.abs(distance) - drawn / 2, pixel) * (width / drawn);
  }

  /** Signed distance, to first order, to the ellipse that a level circle of radius a is seen as. */
  function ellipse(dx, dy, a) {
    const u = (dx / a) ** 2, v = (dy / (TILT * a)) ** 2, k = Math.sqrt(u + v + 1e-9);
    return k * (k - 1) / Math.sqrt(u / a ** 2 + v / (TILT * a) ** 2 + 1e-9);
  }

  /** A wall with a gradient and a soft glow, a table, and the glass's shadow on it: the colour of a point. */
  function drawRoom(scene, x, y, pixel) {
    let colour = mix(scene.background_top, scene.background_bottom, share(y / scene.table_y));
    const glow = Math.exp(-((x - 0.5 - 0.45 * scene.light) ** 2) / 0.16) * Math.exp(-((y - 0.1) ** 2) / 0.16);
    colour = mix(colour, WHITE, 0.16 * glow);
    const onTable = cover(scene.table_y - y, pixel), depth = share((y - scene.table_y) / (1 - scene.table_y));
    colour = mix(colour, scene.table.map(value => value * (0.72 + 0.42 * depth)), onTable);
    colour = mix(colour, WHITE, 0.22 * line(y - scene.table_y, 0.008, pixel));
    const foot = scene.radius * scene.height * (scene.glass === "tumbler" ? 0.8 : 0.6);
    const dx = x - scene.x, dy = y - scene.foot_y;
    const cast = Math.exp(-(((dx + scene.light * 0.9 * foot) / (1.5 * foot)) ** 2) - (dy / (0.30 * foot)) ** 2);
    const contact = Math.exp(-((dx / (1.05 * foot)) ** 4) - (dy / (0.24 * foot)) ** 4);
    return mix(mix(colour, BLACK, 0.45 * cast * onTable), BLACK, 0.75 * contact * onTable);
  }

  /** The glass as geometry, a surface of revolution: y -> x -> the distances that drawing needs. */
  function makeGlass(scene) {
    const isTumbler = scene.glass === "tumbler", {height} = scene;
    const radius = scene.radius * height, wall = 0.022 * height;
    const foot = isTumbler ? 0 : 0.42, low = isTumbler ? 0.09 : 0.455, surface = low + scene.fill * (0.93 - low);

    function halfWidth(t, thickness) {
      const narrow = Math.sin(0.70 * Math.PI * share((t - 0.42) / 0.58) ** 0.62) ** 0.72;
      return Math.max((isTumbler ? 0.80 + 0.20 * t : narrow) * radius - thickness, 1e-3);
    }

    /** The bowl between two heights, in the row t of the picture: how far away and how far across a point is. */
    function solid(t, dy, from, to, thickness) {
      const r = halfWidth(t, thickness), rise = halfWidth(t + 1e-3, thickness) - halfWidth(t - 1e-3, thickness);
      const lean = Math.sqrt(1 + (rise / (2e-3 * height)) ** 2), beyond = Math.max(from - t, t - to) * height;
      const bottom = halfWidth(from, thickness), top = halfWidth(to, thickness);
      return dx => {
        const level = ellipse(dx, dy + to * height, top);
        const distance = Math.max((Math.abs(dx) - r) / lean, beyond);
        return {distance: Math.min(distance, ellipse(dx, dy + from * height, bottom), level), level, across: dx / r};
      };
    }

    return y => {
      const dy = y - scene.foot_y, t = -dy / height;
      const outside = solid(t, dy, foot, 1, 0), inside = solid(t, dy, low, surface, wall);
      const flare = 1 + 1.6 * share(Math.abs(2 * t / 0.44 - 1)) ** 4, beyond = Math.max(-t, t - 0.46) * height;
      return x => {
        const dx = x - scene.x, bowl = outside(dx), liquid = inside(dx);
        const stem = isTumbler ? Infinity : Math.max(Math.abs(dx) - 0.020 * height * flare, beyond);
        const base = isTumbler ? Infinity : ellipse(dx, dy, 0.62 * radius);
        return {bowl, liquid, distance: Math.min(bowl.distance, stem, base), t, surface, wall, isTumbler};
      };
    };
  }

  /** Water shows the room behind it, upside down and a little blue; wine hides it. */
  function drawLiquid(scene, at, colour, room, upsideDown, pixel) {
    const mask = cover(at.liquid.distance, pixel), across = clip(at.liquid.across, -1, 1);
    if (!mask) return colour;
    const edge = Math.abs(across) ** 3, lit = 1 + 0.10 * scene.light * across;
    let inside, top;
    if (scene.liquid === "water") {
      const through = mix(upsideDown, scene.background_top, 0.5);
      inside = mix(through, WATER, 0.40).map(value => value * (1 - 0.22 * edge) * lit);
      top = mix(inside, WATER_SURFACE, 0.45);
    } else {
      inside = mix(WINE, WINE_THIN, 0.20 + 0.55 * edge).map((value, c) => value * lit + 0.06 * room[c]);
      top = mix(room, WINE_THIN, 0.92);
    }
    colour = mix(colour, inside.map(share), mask);
    colour = mix(colour, top.map(share), cover(at.liquid.level, pixel) * mask);
    const isInFront = at.t < at.surface, rim = scene.liquid === "water" ? WHITE : WINE_RIM;
    return isInFront ? mix(colour, rim, 0.65 * line(at.liquid.level, 0.010, pixel) * mask) : colour;
  }

  /** The glass with what is in it. Edges are bright before something dark and dark before something bright. */
  function drawGlass(scene, at, room, upsideDown, pixel) {
    const mask = cover(at.distance, pixel);
    if (!mask && at.distance > 0.1) return room;
    let colour = drawLiquid(scene, at, mix(room, WHITE, 0.07 * mask), room, upsideDown, pixel);
    const darkEdge = share(((room[0] + room[1] + room[2]) / 3 - 0.42) / 0.12);
    const edge = room.map(value => 0.93 + darkEdge * (0.42 * value - 0.93));
    colour = mix(colour, edge, 0.80 * line(at.distance + 0.5 * at.wall, 0.014, pixel));
    colour = mix(colour, edge, 0.85 * line(at.bowl.level, 0.013, pixel) * mask);
    const [low, high] = at.isTumbler ? [0.22, 0.86] : [0.62, 0.92];
    const ends = share((at.t - low) / 0.05) * share((high - at.t) / 0.05);
    const near = Math.exp(-(((at.bowl.across - 0.62 * scene.light) / 0.11) ** 2));
    const far = Math.exp(-(((at.bowl.across + 0.74 * scene.light) / 0.06) ** 2));
    return mix(colour, WHITE, (0.75 * near + 0.30 * far) * scene.highlight * ends);
  }

  return {arrange, render};
})();
