// Pictures: drawn on a canvas, and read from a file and prepared for the model as `predict` does
// (stages/images/preprocessing.py). A picture of the right size without transparency is left as it
// is. Scaling gives the bytes that Pillow's bicubic filter gives, with its integer weights.

/** Paint the picture on a canvas, pixel by pixel; page.css says how large it is shown. */
function paint(canvas, { channels, height, width, data }) {
  canvas.width = width;
  canvas.height = height;
  const pixels = new ImageData(width, height), area = height * width;
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = data[Math.min(c, channels - 1) * area + i];
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** A canvas with the picture, and a label for screen readers. */
function pictureCanvas(picture, label) {
  const canvas = element("canvas", { class: "pixels", role: "img", "aria-label": label });
  paint(canvas, picture);
  return canvas;
}

/** A file, or anything else that holds a picture -> an image of the model's shape. */
async function readPicture(file, model) {
  const bitmap = await createImageBitmap(file, {
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  return fitted(opaque(data, bitmap.height, bitmap.width, model.shape[0]), model);
}

/** RGBA -> an image of one channel (grey) or three; transparent pixels are put on white. */
function opaque(rgba, height, width, channels) {
  const area = height * width, data = new Uint8Array(channels * area);
  for (let i = 0; i < area; i++) {
    const alpha = rgba[4 * i + 3];
    const share = alpha ? Math.floor(alpha * 255 * 255 * 128 / 65025) : 0;
    const colours = [0, 1, 2].map((c) => {
      const mixed = rgba[4 * i + c] * share + 255 * (255 * 128 - share) + (128 << 7);
      return ((mixed >> 8) + mixed >> 8) >> 7;
    });
    if (channels === 3) colours.forEach((value, c) => { data[c * area + i] = value; });
    else data[i] = (colours[0] * 19595 + colours[1] * 38470 + colours[2] * 7471 + 0x8000) >> 16;
  }
  return { channels, height, width, data };
}

/** Scaled, then cropped to its centre or padded with black; unchanged if of the right size. */
function fitted(image, { shape: [, height, width], fit }) {
  if (image.height === height && image.width === width) return image;
  if (fit === "crop") {
    const ratio = image.width / image.height, wanted = width / height;
    const w = ratio > wanted ? wanted * image.height : image.width;
    const h = ratio < wanted ? image.width / wanted : image.height;
    const left = (image.width - w) * 0.5, top = (image.height - h) * 0.5;
    return resized(image, height, width, [left, top, left + w, top + h]);
  }
  const scale = Math.min(width / image.width, height / image.height);
  const side = (size) => Math.max(1, roundedToEven(size * scale));
  const inner = resized(image, side(image.height), side(image.width));
  const left = Math.floor((width - inner.width) / 2), top = Math.floor((height - inner.height) / 2);
  const data = new Uint8Array(image.channels * height * width);
  for (let row = 0; row < image.channels * inner.height; row++) {
    const channel = Math.floor(row / inner.height), y = row % inner.height;
    const line = inner.data.subarray(row * inner.width, (row + 1) * inner.width);
    data.set(line, (channel * height + top + y) * width + left);
  }
  return { channels: image.channels, height, width, data };
}

function roundedToEven(number) {
  const below = Math.floor(number), rest = number - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}

/** Pillow's bicubic resampling of a box (left, top, right, bottom) of an image of bytes. */
function resized(image, height, width, box = [0, 0, image.width, image.height]) {
  const [left, top, right, bottom] = box.map(Math.fround);
  const across = left || right !== image.width || width !== image.width;
  const down = top || bottom !== image.height || height !== image.height;
  const columns = across ? resampled(image, kernels(image.width, left, right, width), false) : image;
  return down ? resampled(columns, kernels(image.height, top, bottom, height), true) : columns;
}

/** For each pixel of the result, the first source pixel it depends on, and integer weights. */
function kernels(size, start, end, count) {
  const scale = Math.fround(end - start) / count, stretch = Math.max(scale, 1);
  return Array.from({ length: count }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - 2 * stretch + 0.5));
    const last = Math.min(size, Math.trunc(centre + 2 * stretch + 0.5));
    const weights = [];
    for (let x = first; x < last; x++) weights.push(bicubic((x - centre + 0.5) * (1 / stretch)));
    const sum = weights.reduce((a, b) => a + b, 0);
    return {
      first,
      weights: weights.map((w) => Math.trunc((w < 0 ? -0.5 : 0.5) + w / sum * 2 ** 22)),
    };
  });
}

function bicubic(distance) {
  const x = Math.abs(distance), a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

function resampled({ channels, height, width, data }, sums, down) {
  const rows = down ? sums.length : height, columns = down ? width : sums.length;
  const result = new Uint8ClampedArray(channels * rows * columns);
  for (let channel = 0; channel < channels; channel++) {
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const { first, weights } = sums[down ? y : x];
        const from = channel * height * width + (down ? first * width + x : y * width + first);
        let sum = 2 ** 21;
        for (let i = 0; i < weights.length; i++) sum += weights[i] * data[from + i * (down ? width : 1)];
        result[(channel * rows + y) * columns + x] = Math.floor(sum / 2 ** 22);
      }
    }
  }
  return { channels, height: rows, width: columns, data: new Uint8Array(result.buffer) };
}
