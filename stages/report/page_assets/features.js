// Images -> features: the same integer steps as stages/images/features.py, so the same bytes.
//
// An image is {channels, height, width, data}, its data a Uint8Array in the order (C, H, W). Every
// number is an integer below 2 ** 53, and IEEE 754 rounds quotients and square roots correctly.

const DIRECTIONS = [[64, 0], [45, 45], [0, 64], [-45, 45], [-64, 0], [-45, -45], [0, -64], [45, -45]];
const CELLS = 14; // per side, for gradients
const FAINT_GRADIENT = 128; // subtracted from the root of a cell's mean gradient
const PAIR_CELLS = 4; // per side, for pairs
const PAIR_DISTANCE = 2; // cells
const COLOUR_CELLS = 8; // per side, for colours
const MAX_SHEAR = 512; // 1/256 of a pixel per row
const DISPLACEMENTS = [[0, PAIR_DISTANCE], [PAIR_DISTANCE, 0]]; // rows down, columns right

const tentsOfSize = new Map();

/** How much each of `size` pixels counts for the cells: for each pixel, [[cell, weight], ...]. */
function tents(size, cells) {
  const key = `${size} ${cells}`;
  if (!tentsOfSize.has(key)) {
    const width = 2 * Math.max(size, cells);
    const ofPixel = Array.from({ length: size }, (_, pixel) => {
      const found = [];
      for (let cell = 0; cell < cells; cell++) {
        const distance = Math.abs(cells * (2 * pixel + 1) - size * (2 * cell + 1));
        const weight = Math.floor((32 * Math.max(width - distance, 0) + width) / (2 * width));
        if (weight) found.push([cell, weight]);
      }
      return found;
    });
    tentsOfSize.set(key, ofPixel);
  }
  return tentsOfSize.get(key);
}

/** A, the result of steps 1 to 3, a Float64Array in the order (8, 14, 14). */
function cellGradients({ channels, height, width, data }) {
  const sums = new Float64Array(8 * CELLS * CELLS);
  const down = tents(height, CELLS), right = tents(width, CELLS);
  const r = new Float64Array(8), crosses = new Float64Array(8);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let gx = 0, gy = 0, largest = 0;
      for (let channel = 0; channel < channels; channel++) {
        const at = (channel * height + y) * width + x;
        const dx = (x + 1 < width ? data[at + 1] : 0) - (x > 0 ? data[at - 1] : 0);
        const dy = (y + 1 < height ? data[at + width] : 0) - (y > 0 ? data[at - width] : 0);
        if (dx * dx + dy * dy > largest) [gx, gy, largest] = [dx, dy, dx * dx + dy * dy];
      }
      if (!largest) continue;
      for (let b = 0; b < 8; b++) crosses[b] = gx * DIRECTIONS[b][1] - gy * DIRECTIONS[b][0];
      for (let b = 0; b < 8; b++) r[b] = Math.min(crosses[(b + 1) % 8], crosses[(b + 3) % 8]);
      for (const [i, overRows] of down[y]) {
        for (const [j, overColumns] of right[x]) {
          const weight = overRows * overColumns;
          for (let b = 0; b < 8; b++) {
            if (r[b] > 0) sums[(b * CELLS + i) * CELLS + j] += weight * r[b];
          }
        }
      }
    }
  }
  const area = Math.max(height, CELLS) * Math.max(width, CELLS);
  return sums.map((sum) => {
    const root = Math.floor(Math.sqrt(Math.floor(sum * (4 * CELLS * CELLS) / area)));
    return Math.max(root - FAINT_GRADIENT, 0);
  });
}

/** Call visit(b, here, c, there, feature, weight) for every product that counts towards a pair.
 *
 * `here` and `there` are two cells a displacement apart, `feature` the index of the pair (b, c) in
 * one of the 4 x 4 cells, in the order (8, 8, 4, 4). Products that are zero are skipped.
 */
function forEachPair(cells, [rowsDown, columnsRight], visit) {
  const rows = CELLS - rowsDown, columns = CELLS - columnsRight, area = CELLS * CELLS;
  const down = tents(rows, PAIR_CELLS), right = tents(columns, PAIR_CELLS);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const here = y * CELLS + x, there = (y + rowsDown) * CELLS + x + columnsRight;
      for (let b = 0; b < 8; b++) {
        if (!cells[b * area + here]) continue;
        for (let c = 0; c < 8; c++) {
          if (!cells[c * area + there]) continue;
          const first = (b * 8 + c) * PAIR_CELLS * PAIR_CELLS;
          for (const [i, overRows] of down[y]) {
            for (const [j, overColumns] of right[x]) {
              visit(b, here, c, there, first + i * PAIR_CELLS + j, overRows * overColumns);
            }
          }
        }
      }
    }
  }
}

/** Q of step 4 for one displacement, in the order (8, 8, 4, 4). */
function pairSums(cells, displacement) {
  const sums = new Float64Array(8 * 8 * PAIR_CELLS * PAIR_CELLS), area = CELLS * CELLS;
  forEachPair(cells, displacement, (b, here, c, there, feature, weight) => {
    sums[feature] += weight * cells[b * area + here] * cells[c * area + there];
  });
  return sums;
}

/** The mean of each channel in 8 x 8 cells, not yet rounded down, in the order (C, 8, 8). */
function meanColours({ channels, height, width, data }) {
  const area = COLOUR_CELLS * COLOUR_CELLS;
  const sums = new Float64Array(channels * area), weights = new Float64Array(area);
  const down = tents(height, COLOUR_CELLS), right = tents(width, COLOUR_CELLS);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (const [i, overRows] of down[y]) {
        for (const [j, overColumns] of right[x]) {
          const cell = i * COLOUR_CELLS + j, weight = overRows * overColumns;
          weights[cell] += weight;
          for (let channel = 0; channel < channels; channel++) {
            sums[channel * area + cell] += weight * data[(channel * height + y) * width + x];
          }
        }
      }
    }
  }
  return sums.map((sum, index) => sum / weights[index % area]);
}

/** What the features of an image are computed from: {cells, pairs: one Q per displacement, colours}. */
function gradientParts(image) {
  const cells = cellGradients(image);
  const pairs = DISPLACEMENTS.map((displacement) => pairSums(cells, displacement));
  return { cells, pairs, colours: image.channels === 3 ? meanColours(image) : [] };
}

/** Step 5: cells, pairs to the right, pairs down, colours, a Uint8Array. */
function featuresOfParts({ cells, pairs, colours }) {
  return Uint8Array.from([
    ...cells.map((a) => Math.min(a / 16, 255)),
    ...pairs.flatMap((sums) => [...sums.map((sum) => Math.min(Math.sqrt(sum) / 128, 255))]),
    ...colours,
  ]); // to a Uint8Array, which rounds down
}

function gradientFeatures(image) {
  return featuresOfParts(gradientParts(image));
}

/** The image sheared so that what it shows is upright. */
function deskew(image) {
  const { channels, height, width, data } = image;
  const shear = shearOf(image);
  const upright = new Uint8Array(data.length);
  for (let y = 0; y < height; y++) {
    const shift = Math.floor(shear * (2 * y - height + 1) / 2);
    const whole = Math.floor(shift / 256), part = shift - 256 * whole;
    for (let channel = 0; channel < channels; channel++) {
      const row = (channel * height + y) * width;
      for (let x = 0; x < width; x++) {
        const from = x + whole;
        const left = from >= 0 && from < width ? data[row + from] : 0;
        const right = from + 1 >= 0 && from + 1 < width ? data[row + from + 1] : 0;
        upright[row + x] = ((256 - part) * left + part * right + 128) >> 8;
      }
    }
  }
  return { channels, height, width, data: upright };
}

/** The shear, in 1/256 of a pixel per row. */
function shearOf({ channels, height, width, data }) {
  const unit = Math.ceil(Math.max(height, width) / 64);
  const middle = (size) => Math.floor(Math.floor((size - 1) / unit) / 2);
  const moments = new Float64Array(5); // m, S_x, S_y, S_xy, S_yy
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let mass = 0;
      for (let channel = 0; channel < channels; channel++) {
        mass += data[(channel * height + y) * width + x];
      }
      const v = Math.floor(y / unit) - middle(height), u = Math.floor(x / unit) - middle(width);
      moments[0] += mass;
      moments[1] += mass * u;
      moments[2] += mass * v;
      moments[3] += mass * u * v;
      moments[4] += mass * v * v;
    }
  }
  const divisor = Math.max(Math.ceil(moments[0] / 2 ** 21), 1);
  const [mass, sx, sy, sxy, syy] = moments.map((moment) => Math.floor(moment / divisor));
  const m = Math.max(mass, 1);
  const uxy = sxy - Math.floor(sx * sy / m), uyy = syy - Math.floor(sy * sy / m);
  if (uyy <= 0) return 0;
  const shear = Math.floor((512 * uxy + uyy) / (2 * uyy));
  return Math.min(Math.max(shear, -MAX_SHEAR), MAX_SHEAR);
}
