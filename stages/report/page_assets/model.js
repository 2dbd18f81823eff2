// The model: an image -> features -> probabilities, and what each part of the image contributes.

const GRID = 28; // cells per side, at most, of the map of contributions of pixels

/** The model, from the text in the page. */
function readModel(run) {
  const biases = floatsOf(run.biases), weights = floatsOf(run.weights);
  return { ...run.model, biases, weights, size: weights.length / biases.length };
}

/** Everything computed from an image: {image, parts, features}; `image` is as the model sees it. */
function seenBy(model, picture) {
  const image = model.deskew ? deskew(picture) : picture;
  if (model.features === "pixels") return { image, features: image.data };
  const parts = gradientParts(image);
  return { image, parts, features: featuresOfParts(parts) };
}

/** softmax(W x / 255 + b), in float64. */
function probabilities({ weights, biases, size }, features) {
  const scaled = Float64Array.from(features, (feature) => feature * (1 / 255));
  const logits = biases.map((bias, k) => {
    let sum = 0;
    for (let i = 0, at = k * size; i < size; i++, at++) sum += weights[at] * scaled[i];
    return sum + bias;
  });
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const exponentials = logits.map((logit) => Math.exp(logit - largest));
  const total = exponentials.reduce((a, b) => a + b);
  return exponentials.map((value) => value / total);
}

/** The weights of class `chosen` minus those of `other`, or minus the mean of all classes. */
function weightsAgainst({ weights, biases, size }, chosen, other) {
  const row = (k) => weights.subarray(k * size, (k + 1) * size);
  if (other !== null) {
    const others = row(other);
    return { bias: biases[chosen] - biases[other], weights: row(chosen).map((w, i) => w - others[i]) };
  }
  const k = biases.length, mean = new Float64Array(size);
  for (let i = 0; i < weights.length; i++) mean[i % size] += weights[i] / k;
  return {
    bias: biases[chosen] - biases.reduce((a, b) => a + b) / k,
    weights: row(chosen).map((w, i) => w - mean[i]),
  };
}

/** What speaks for and against class `chosen`, by position.
 *
 * For a linear model, this is exact: the contribution of a feature is its weight times its
 * value, and the contributions and the bias add up to the difference of the logits. The
 * contribution of a pair is split equally between its two cells, in proportion to the products.
 * Returns {rows, columns, values, bias, total}.
 */
function contributions(model, seen, chosen, other) {
  const against = weightsAgainst(model, chosen, other);
  const values = Array.from(seen.features, (feature, i) => against.weights[i] * feature / 255);
  const total = values.reduce((a, b) => a + b, against.bias);
  const map = model.features === "pixels" ? pixelMap(seen.image, values) : cellMap(seen, values);
  return { ...map, bias: against.bias, total };
}

function pixelMap({ height, width }, values) {
  const box = Math.ceil(Math.max(height, width) / GRID);
  const rows = Math.ceil(height / box), columns = Math.ceil(width / box);
  const map = new Float64Array(rows * columns);
  values.forEach((value, i) => {
    const x = i % width, y = Math.floor(i / width) % height;
    map[Math.floor(y / box) * columns + Math.floor(x / box)] += value;
  });
  return { rows, columns, values: map };
}

function cellMap({ parts, image }, values) {
  const area = CELLS * CELLS, map = new Float64Array(area);
  for (let i = 0; i < 8 * area; i++) map[i % area] += values[i];
  let start = 8 * area;
  DISPLACEMENTS.forEach((displacement, d) => {
    const sums = parts.pairs[d], first = start;
    forEachPair(parts.cells, displacement, (b, here, c, there, feature, weight) => {
      const product = parts.cells[b * area + here] * parts.cells[c * area + there];
      const half = values[first + feature] * weight * product / sums[feature] / 2;
      map[here] += half;
      map[there] += half;
    });
    start += sums.length;
  });
  if (image.channels === 3) {
    const colours = COLOUR_CELLS * COLOUR_CELLS;
    values.slice(start).forEach((value, i) => spread(map, value, i % colours));
  }
  return { rows: CELLS, columns: CELLS, values: map };
}

/** Add the value of one of the 8 x 8 colour cells to the cells it overlaps. */
function spread(map, value, cell) {
  const overlap = (a, b) => Math.max(0, Math.min((a + 1) * COLOUR_CELLS, (b + 1) * CELLS)
    - Math.max(a * COLOUR_CELLS, b * CELLS)) / CELLS;
  const row = Math.floor(cell / COLOUR_CELLS), column = cell % COLOUR_CELLS;
  for (let y = 0; y < CELLS; y++) {
    for (let x = 0; x < CELLS; x++) map[y * CELLS + x] += value * overlap(y, row) * overlap(x, column);
  }
}
