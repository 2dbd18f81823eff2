// The drawing area: strokes of a pen -> a picture, sized and centred like those of the data set.
//
// `ink` says how those are: {tone: light or dark, side: the longer side of the box around the ink,
// centre: of the ink (y, x), centredBy: "mass" or "box", penWidth: of a stroke}, in pixels.

const FIELD = 336; // pixels per side, at most
const MAX_SCALE = 4; // a small drawing is enlarged at most this many times
const TOLERANCE = 0.75; // pixels off the centre, below which a picture counts as centred

class Field {
  constructor(canvas, [, height], ink, changed) {
    Object.assign(this, { canvas, height, ink, changed, strokes: [], pen: null });
    canvas.width = canvas.height = height * Math.max(1, Math.floor(FIELD / height));
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.clear();
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.draw(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.end(event));
    }
    canvas.addEventListener("input", () => changed(this.picture())); // from a script that painted on it
  }

  clear() {
    this.strokes = [];
    this.shown = null;
    this.context.fillStyle = this.ink.tone === "light" ? "black" : "white";
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.remember();
  }

  /** Show a picture as it is; the next stroke starts a new drawing. */
  show(picture) {
    this.clear();
    const small = new OffscreenCanvas(picture.width, picture.height);
    paint(small, picture);
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(small, 0, 0, this.canvas.width, this.canvas.height);
    this.shown = picture;
    this.remember();
  }

  begin(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    if (this.shown && this.isUnchanged()) this.clear();
    if (event.isTrusted) this.canvas.setPointerCapture(event.pointerId); // not if from a script
    this.pen = event.pointerId;
    this.strokes.push([]);
    this.draw(event);
  }

  draw(event) {
    if (event.pointerId !== this.pen) return;
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    const stroke = this.strokes.at(-1), coalesced = event.getCoalescedEvents?.() ?? [];
    for (const { clientX, clientY } of coalesced.length ? coalesced : [event]) {
      stroke.push([(clientX - left) / width, (clientY - top) / height]);
    }
    const size = this.canvas.width, unchanged = this.isUnchanged();
    const latest = stroke.slice(-coalesced.length - 2);
    drawStrokes(this.context, this.ink, [latest], size, 0, 0, this.ink.penWidth * size / this.height);
    if (unchanged) this.remember();
    this.changed(this.picture());
  }

  end(event) {
    if (event.pointerId === this.pen) this.pen = null;
    if (!this.isUnchanged()) this.changed(this.picture());
  }

  /** The picture for the model, from what is in the field. */
  picture() {
    if (!this.isUnchanged()) return this.normalized();
    return this.shown ?? (this.strokes.length ? this.normalizedStrokes() : this.normalized());
  }

  /** Remember what is in the field, so that painting by anything else is noticed. */
  remember() {
    this.remembered = this.pixels();
  }

  isUnchanged() {
    const pixels = this.pixels();
    for (let i = 0; i < pixels.length; i++) if (pixels[i] !== this.remembered[i]) return false;
    return true;
  }

  pixels() {
    const { width, height } = this.canvas;
    return new Uint32Array(this.context.getImageData(0, 0, width, height).data.buffer);
  }

  /** The strokes, with the size, position and pen width of the data set. */
  normalizedStrokes() {
    const { height, ink } = this, points = this.strokes.flat();
    const box = [0, 1].map((axis) => points.map((point) => point[axis]));
    const [x0, y0] = box.map((values) => Math.min(...values));
    const [x1, y1] = box.map((values) => Math.max(...values));
    const scale = Math.min((ink.side - ink.penWidth) / Math.max(x1 - x0, y1 - y0), MAX_SCALE * height);
    const [y, x] = ink.centredBy === "mass" ? [height / 2, height / 2] : fromCorner(ink.centre);
    const left = x - scale * (x0 + x1) / 2, top = y - scale * (y0 + y1) / 2;
    const first = this.rasterized(scale, left, top);
    if (ink.centredBy === "box") return first;
    const [dy, dx] = offset(first, ink);
    return this.rasterized(scale, left + dx, top + dy);
  }

  rasterized(scale, left, top) {
    const context = blank(this.height, this.ink);
    drawStrokes(context, this.ink, this.strokes, scale, left, top, this.ink.penWidth);
    return grey(context);
  }

  /** A picture of whatever is in the field, unchanged if it is already sized and centred. */
  normalized() {
    const { height, ink, canvas } = this;
    const { data } = this.context.getImageData(0, 0, canvas.width, canvas.width);
    const current = averaged(data, canvas.width, height);
    const box = inkBox(current, ink);
    if (!box) return current;
    const [dy, dx] = offset(current, ink);
    const side = Math.max(box.bottom - box.top, box.right - box.left);
    if (Math.abs(side - ink.side) <= 1 && Math.max(Math.abs(dy), Math.abs(dx)) < TOLERANCE) return current;
    const scale = Math.min(ink.side / side, MAX_SCALE), factor = canvas.width / height;
    const w = (box.right - box.left) * scale, h = (box.bottom - box.top) * scale;
    const draw = (left, top) => {
      const fresh = blank(height, ink);
      fresh.imageSmoothingQuality = "high";
      fresh.drawImage(
        canvas, box.left * factor, box.top * factor,
        (box.right - box.left) * factor, (box.bottom - box.top) * factor, left, top, w, h,
      );
      return grey(fresh);
    };
    const left = Math.round((height - w) / 2), top = Math.round((height - h) / 2);
    const [my, mx] = offset(draw(left, top), ink);
    return draw(left + Math.round(mx), top + Math.round(my));
  }
}

const fromCorner = (centre) => centre.map((at) => at + 0.5); // a pixel's middle is half a pixel from its edge

function blank(size, ink) {
  const context = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
  context.fillStyle = ink.tone === "light" ? "black" : "white";
  context.fillRect(0, 0, size, size);
  return context;
}

function drawStrokes(context, ink, strokes, scale, left, top, pen) {
  context.strokeStyle = ink.tone === "light" ? "white" : "black";
  context.lineWidth = pen;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    const points = stroke.map(([x, y]) => [left + scale * x, top + scale * y]);
    context.moveTo(...points[0]);
    for (const point of points.length > 1 ? points.slice(1) : points) context.lineTo(...point);
    context.stroke();
  }
}

/** The picture on a small canvas, as one grey channel. */
function grey(context) {
  const { width, height } = context.canvas;
  const { data } = context.getImageData(0, 0, width, height);
  return { channels: 1, height, width, data: Uint8Array.from({ length: width * height }, (_, i) => data[4 * i]) };
}

/** RGBA of a square -> a grey square of fewer pixels, each the mean of a box. */
function averaged(rgba, size, small) {
  const box = size / small, sums = new Float64Array(small * small);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      sums[Math.floor(y / box) * small + Math.floor(x / box)] += rgba[4 * (y * size + x)];
    }
  }
  const data = Uint8Array.from(sums, (sum) => Math.round(sum / (box * box)));
  return { channels: 1, height: small, width: small, data };
}

const inkOf = (value, ink) => (ink.tone === "light" ? value : 255 - value);

/** The box around all ink, right and bottom exclusive; null if there is none. */
function inkBox({ width, data }, ink) {
  const box = { left: Infinity, top: Infinity, right: 0, bottom: 0 };
  data.forEach((value, i) => {
    if (!inkOf(value, ink)) return;
    const x = i % width, y = Math.floor(i / width);
    box.left = Math.min(box.left, x);
    box.top = Math.min(box.top, y);
    box.right = Math.max(box.right, x + 1);
    box.bottom = Math.max(box.bottom, y + 1);
  });
  return box.right ? box : null;
}

/** How far the ink must move to be where the data set has it, (y, x). */
function offset(picture, ink) {
  const [y, x] = ink.centredBy === "mass" ? massCentre(picture, ink) : boxCentre(picture, ink);
  return [ink.centre[0] - y, ink.centre[1] - x];
}

function massCentre({ width, data }, ink) {
  let mass = 0, sy = 0, sx = 0;
  data.forEach((value, i) => {
    const m = inkOf(value, ink);
    mass += m;
    sx += m * (i % width);
    sy += m * Math.floor(i / width);
  });
  return mass ? [sy / mass, sx / mass] : ink.centre;
}

function boxCentre(picture, ink) {
  const box = inkBox(picture, ink);
  return box ? [(box.top + box.bottom - 1) / 2, (box.left + box.right - 1) / 2] : ink.centre;
}
