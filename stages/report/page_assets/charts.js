// Curves of training, calibration, and what the model looks for.

const SAMPLE = 150; // pictures on which the typical strength of edges is measured
const MIN_STRENGTH = 0.07; // share of the strongest edge, below which none is drawn
const CHART = { width: 520, height: 250, left: 52, right: 96, top: 14, bottom: 36 };

/** Round numbers from `low` to `high`, in steps of 1, 2 or 5 times a power of ten. */
function ticks(low, high, count) {
  const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(i * step + 0); // not -0
  return { step, values };
}

function axes({ x, y, xLabel, xText, yText, xTicks, yTicks }) {
  const { width, height, left, right, top, bottom } = CHART;
  const group = shape("g", { class: "axes" });
  for (const value of yTicks) {
    group.append(
      shape("path", { class: "rule", d: `M${left} ${y(value)}H${width - right}` }),
      shape("text", { x: left - 8, y: y(value), dy: ".32em", "text-anchor": "end" }, yText(value)),
    );
  }
  for (const value of xTicks) {
    const place = { x: x(value), y: height - bottom + 18, "text-anchor": "middle" };
    group.append(shape("text", place, xText(value)));
  }
  const middle = { x: (left + width - right) / 2, y: height - 2, "text-anchor": "middle" };
  group.append(shape("text", middle, xLabel));
  return group;
}

/** Lines over iterations; `series`: [{name, style, points: [[iteration, value], ...]}]. */
function lineChart(label, series, text) {
  const { width, height, left, right, top, bottom } = CHART;
  const points = series.flatMap((one) => one.points);
  const last = Math.max(...points.map((point) => point[0]));
  const values = points.map((point) => point[1]);
  const span = Math.max(...values) - Math.min(...values) || Math.abs(values[0]) || 1;
  const vertical = ticks(Math.min(...values) - span / 9, Math.max(...values) + span / 9, 4);
  const low = vertical.values[0] - vertical.step, high = vertical.values.at(-1);
  const from = Math.min(...values) < vertical.values[0] ? low : vertical.values[0];
  const to = Math.max(...values) > high ? high + vertical.step : high;
  const x = (value) => left + (width - left - right) * value / last;
  const y = (value) => top + (height - top - bottom) * (to - value) / (to - from || 1);
  const marks = ticks(from, to, 4);
  const digits = Math.max(0, -Math.floor(Math.log10(marks.step)));
  const ends = [];
  const lines = series.map(({ name, style, points: of }) => {
    const [endX, endY] = of.at(-1);
    let at = y(endY);
    for (const other of ends) if (Math.abs(other - at) < 15) at = other + (at < other ? -15 : 15);
    ends.push(at);
    return shape(
      "g", { class: style },
      shape("path", { class: "line", d: `M${of.map(([a, b]) => `${x(a)} ${y(b)}`).join("L")}` }),
      ...of.map(([a, b]) => shape(
        "circle", { cx: x(a), cy: y(b), r: of.length > 40 ? 1.5 : 3 },
        shape("title", {}, `${name}, iteration ${grouped(a)}: ${text(b, digits + 2)}`),
      )),
      shape("text", { x: x(endX) + 10, y: at, dy: ".32em" }, name),
    );
  });
  const scale = axes({
    x, y, xLabel: "iteration", xText: grouped, yText: (value) => text(value, digits),
    xTicks: ticks(0, last, 4).values, yTicks: marks.values,
  });
  const viewBox = `0 0 ${width} ${height}`;
  return shape("svg", { viewBox, role: "img", "aria-label": label, class: "chart" }, scale, ...lines);
}

/** The curves of history rows [iteration, training loss, validation loss, validation accuracy]. */
function curves(history) {
  const column = (i) => history.filter((row) => row[i] !== null).map((row) => [row[0], row[i]]);
  const losses = [
    { name: "training", style: "first", points: column(1) },
    { name: "validation", style: "second", points: column(2) },
  ].filter((one) => one.points.length);
  const accuracy = [{ name: "validation", style: "second", points: column(3) }];
  const last = (points) => points.at(-1)[1];
  const figures = [];
  if (losses.length) {
    const ends = losses.map((one) => `${one.name} ${last(one.points).toFixed(4)}`).join(", ");
    figures.push(captioned("Cross entropy, in nats", lineChart(
      `Cross entropy over ${history.length} rows of history; at the end ${ends}`,
      losses, (value, digits) => value.toFixed(digits),
    )));
  }
  if (accuracy[0].points.length) {
    figures.push(captioned("Accuracy", lineChart(
      `Accuracy on the validation split; at the end ${percent(last(accuracy[0].points))}`,
      accuracy, (value, digits) => `${(value * 100).toFixed(Math.max(0, digits - 2))}\u00a0%`,
    )));
  }
  return figures;
}

function captioned(caption, ...content) {
  return element("figure", {}, element("figcaption", {}, caption), ...content);
}

/** Accuracy by confidence with its 95 % interval, above the number of pictures in each bin.
 *
 * bins: [[confidence, accuracy, pictures, low, high], ...]
 */
function calibration(bins, binCount) {
  const { width, left, right, top, bottom } = CHART, height = 340, counted = 66;
  const inner = width - left - 24, plot = height - top - bottom - counted - 14;
  const x = (value) => left + inner * value, y = (value) => top + plot * (1 - value);
  const base = height - bottom, most = Math.max(...bins.map((bin) => bin[2]));
  const barHeight = (n) => Math.max(2, (counted - 16) * Math.log1p(n) / Math.log1p(most));
  const svg = shape("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img", class: "chart",
    "aria-label": "Accuracy by confidence; the table below has the numbers",
  });
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(
      shape("path", { class: "rule", d: `M${left} ${y(value)}H${left + inner}` }),
      shape("text", { x: left - 8, y: y(value), dy: ".32em", "text-anchor": "end" }, percent(value, 0)),
      shape("text", { x: x(value), y: base + 18, "text-anchor": "middle" }, percent(value, 0)),
    );
  }
  svg.append(
    shape("path", { class: "ideal", d: `M${x(0)} ${y(0)}L${x(1)} ${y(1)}` }),
    shape("text", { x: left + inner / 2, y: height - 2, "text-anchor": "middle" }, "confidence"),
    shape("path", { class: "rule", d: `M${left} ${base}H${left + inner}` }),
  );
  const bar = inner / binCount;
  for (const [confidence, accuracy, n, low, high] of bins) {
    const at = Math.min(binCount - 1, Math.max(0, Math.ceil(confidence * binCount - 1e-9) - 1));
    const title = `${grouped(n)} images: confidence ${percent(confidence)}, accuracy ${percent(accuracy)}, ${range(low, high)}`;
    svg.append(
      shape("path", { class: "interval", d: `M${x(confidence)} ${y(low)}V${y(high)}` }),
      shape("circle", { class: "second", cx: x(confidence), cy: y(accuracy), r: 4 }, shape("title", {}, title)),
      shape("rect", {
        class: "count", x: left + at * bar + 1, y: base - barHeight(n), width: Math.max(1, bar - 2), height: barHeight(n),
      }, shape("title", {}, title)),
    );
    if (binCount <= 20) {
      const place = { x: left + (at + 0.5) * bar, y: base - barHeight(n) - 5, "text-anchor": "middle", class: "small" };
      svg.append(shape("text", place, grouped(n)));
    }
  }
  const rows = bins.map(([confidence, accuracy, n, low, high]) => element(
    "tr", {}, ...[percent(confidence), percent(accuracy), range(low, high), grouped(n)].map((text) => element("td", {}, text)),
  ));
  const head = ["confidence", "accuracy", "95 % interval", "images"].map((name) => element("th", { scope: "col" }, name));
  const table = element(
    "table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows),
  );
  return [svg, element("details", {}, element("summary", {}, "The numbers"), table)];
}

/** For each class, a canvas that shows what speaks for and against it. */
function templates(run, model) {
  const draw = model.features === "pixels" ? pixelTemplate : edgeTemplate;
  const { shown } = run.confusion;
  const canvases = shown.map((k) => element("canvas", {
    class: "pixels template", role: "img",
    "aria-label": `What speaks for and against ${run.classes[k]}`,
  }));
  let strengths, most;
  const typical = new Float64Array(8 * CELLS * CELLS);
  const measure = model.features === "pixels" ? [] : typicalEdges(run, model, typical);
  const weigh = () => {
    strengths = shown.map((k) => {
      const { weights } = weightsAgainst(model, k, null);
      return model.features === "pixels" ? weights : edges(weights, typical);
    });
    most = strengths.reduce((a, row) => row.reduce((b, w) => Math.max(b, Math.abs(w)), a), 0) || 1;
  };
  const draws = canvases.map((canvas, i) => () => drawInColours(() => draw(canvas, strengths[i], most, model)));
  whenIdle([...measure, weigh, ...draws]);
  return canvases.map((canvas, i) => element(
    "figure", {}, canvas, element("figcaption", {}, named(run, shown[i])),
  ));
}

/** Steps that compute, in `typical`, how strong edges are: root mean squares over some pictures. */
function typicalEdges(run, model, typical) {
  const every = Math.max(1, Math.floor(run.tests.length / SAMPLE));
  const sample = run.tests.filter((_, i) => i % every === 0);
  const steps = sample.map(({ picture }) => () => {
    cellGradients(model.deskew ? deskew(picture) : picture).forEach((a, i) => {
      typical[i] += Math.min(Math.floor(a / 16), 255) ** 2;
    });
  });
  return [...steps, () => typical.forEach((sum, i) => { typical[i] = Math.sqrt(sum / sample.length); })];
}

/** How much edges of four orientations, whichever side is light, count in each cell. */
function edges(weights, typical) {
  const area = CELLS * CELLS;
  return Float64Array.from({ length: 4 * area }, (_, i) =>
    weights[i] * typical[i] + weights[i + 4 * area] * typical[i + 4 * area]);
}

function edgeTemplate(canvas, strengths, most) {
  const cell = 20, area = CELLS * CELLS;
  canvas.width = canvas.height = cell * CELLS;
  const context = canvas.getContext("2d");
  context.lineCap = "round";
  const order = [...strengths.keys()].sort((a, b) => Math.abs(strengths[a]) - Math.abs(strengths[b]));
  for (const i of order) {
    const strength = Math.abs(strengths[i]) / most;
    if (strength < MIN_STRENGTH) continue;
    const [ex, ey] = DIRECTIONS[Math.floor(i / area)], half = cell * 0.55 / 64;
    const x = (i % CELLS + 0.5) * cell, y = (Math.floor(i % area / CELLS) + 0.5) * cell;
    context.strokeStyle = colour(strengths[i] > 0 ? "--for" : "--against");
    context.globalAlpha = Math.min(1, 0.25 + strength);
    context.lineWidth = Math.min(cell * 0.4, 1 + 9 * strength);
    context.beginPath();
    context.moveTo(x + ey * half, y - ex * half);
    context.lineTo(x - ey * half, y + ex * half);
    context.stroke();
  }
}

function pixelTemplate(canvas, weights, most, { shape: [channels, height, width] }) {
  const area = height * width;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  for (let i = 0; i < area; i++) {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum += weights[c * area + i];
    context.globalAlpha = Math.min(1, Math.sqrt(Math.abs(sum) / (most * channels)));
    context.fillStyle = colour(sum > 0 ? "--for" : "--against");
    context.fillRect(i % width, Math.floor(i / width), 1, 1);
  }
}
