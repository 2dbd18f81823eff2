// "Try it" and "Why": a picture goes in, probabilities and the reasons for them come out.

const MAX_BARS = 12; // classes; with more, only the likeliest have a bar
const LIKELIEST = 10;
const EVIDENCE = 616; // pixels: the longer side of the picture that shows the reasons
const ANNOUNCE_AFTER = 700; // milliseconds without a change
const REGIONS = [["upper left", "top", "upper right"], ["left", "centre", "right"],
  ["lower left", "bottom", "lower right"]];

class Trial {
  constructor(run, model) {
    Object.assign(this, { run, model, chosen: null, other: null });
    this.bars = new Bars(run, (k) => this.explainClass(k));
    const field = find("draw");
    if (run.ink) {
      this.field = new Field(field, model.shape, run.ink, (picture) => this.answer(picture, null));
      find("clear").addEventListener("click", () => this.clear());
      find("try").addEventListener("keydown", (event) => {
        const inField = event.target === field && ["Backspace", "Delete"].includes(event.key);
        if (event.key === "Escape" || inField) this.clear();
      });
    } else {
      find("field").remove();
    }
    this.acceptFiles();
    for (const id of ["chosen", "other"]) {
      find(id).append(...run.classes.map((name, k) => element("option", { value: k }, name)));
      find(id).addEventListener("change", ({ target }) => {
        this[id] = target.value === "" ? null : Number(target.value);
        this.explain();
      });
    }
    for (const [id, tests] of [["picks-right", run.picks.right], ["picks-wrong", run.picks.wrong]]) {
      find(id).append(...tests.map((test) => this.pick(test)));
      find(id).parentElement.hidden = !tests.length;
    }
    drawInColours(() => this.explain());
    const first = run.picks.right[0] ?? run.picks.wrong[0];
    if (first) this.show(first);
  }

  pick(test) {
    const { classes } = this.run;
    const wrong = test.actual === test.predicted ? "" : `, which the model takes for ${classes[test.predicted]}`;
    const canvas = pictureCanvas(test.full, `A test image of ${classes[test.actual]}${wrong}`);
    return element("button", { type: "button", class: "pick", onclick: () => this.show(test) }, canvas);
  }

  /** Show a test picture to the model, as it is. */
  show(test) {
    this.field?.show(test.full);
    this.answer(test.full, test);
  }

  /** No picture, and no answer: `note` says why. */
  clear(note = "Draw, or pick an image.") {
    this.field?.clear();
    find("hint")?.classList.add("off");
    find("prediction").textContent = "";
    find("prediction-note").textContent = note;
    clearTimeout(this.announcement);
    this.bars.clear();
    this.seen = null;
    this.explain();
    paint(find("seen"), this.blank());
  }

  blank() {
    const [channels, height, width] = this.model.shape;
    const paper = this.run.ink?.tone === "dark" ? 255 : 0;
    return { channels, height, width, data: new Uint8Array(channels * height * width).fill(paper) };
  }

  acceptFiles() {
    const zone = find("try"), input = find("file");
    input.addEventListener("change", () => this.read(input.files[0]));
    zone.addEventListener("dragover", (event) => {
      event.preventDefault();
      zone.classList.add("dropping");
    });
    zone.addEventListener("dragleave", () => zone.classList.remove("dropping"));
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      zone.classList.remove("dropping");
      this.read(event.dataTransfer.files[0]);
    });
  }

  async read(file) {
    if (!file) return;
    try {
      const picture = await readPicture(file, this.model);
      this.field?.show(picture);
      this.answer(picture, null);
    } catch {
      this.clear("The browser cannot read this file as a picture.");
      find("spoken").textContent = find("prediction-note").textContent;
    }
  }

  answer(picture, test) {
    const { run, model } = this;
    this.seen = seenBy(model, picture);
    const p = probabilities(model, this.seen.features);
    const likeliest = p.reduce((best, value, k) => (value > p[best] ? k : best), 0);
    find("hint")?.classList.toggle("off", !this.field?.shown);
    paint(find("seen"), this.seen.image);
    find("prediction").textContent = run.classes[likeliest];
    const sure = `${percent(p[likeliest], 1)} sure`;
    const verdict = !test ? "" : test.actual === likeliest ? ", and right" : `, but it is ${run.classes[test.actual]}`;
    find("prediction-note").textContent = sure + verdict;
    this.bars.show(p, likeliest, test?.actual);
    this.chosen = likeliest;
    this.other = test && test.actual !== likeliest ? test.actual : null;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.explain());
    clearTimeout(this.announcement);
    this.announcement = setTimeout(() => {
      find("spoken").textContent = `${run.classes[likeliest]}, ${sure}${verdict}`;
    }, ANNOUNCE_AFTER);
  }

  /** Why class k? The reasons are brought into view where they do not stand beside the bars. */
  explainClass(k) {
    this.chosen = k;
    this.other = null;
    this.explain();
    find("why").scrollIntoView({ block: "nearest" });
  }

  explain() {
    find("why").classList.toggle("empty", !this.seen);
    find("why-empty").hidden = Boolean(this.seen);
    if (!this.seen) return;
    const { run, model, seen, chosen } = this;
    const other = this.other === chosen ? null : this.other;
    find("chosen").value = chosen;
    find("other").value = other ?? "";
    const reasons = contributions(model, seen, chosen, other);
    drawEvidence(find("evidence"), seen.image, reasons, run.ink);
    const sum = (sign) => reasons.values.reduce((a, v) => (v * sign > 0 ? a + v : a), 0);
    const rows = [
      ["for", "Speaks for it", sum(1)], ["against", "Speaks against it", sum(-1)],
      ["", "Bias, for any picture", reasons.bias], ["total", "Total, in nats", reasons.total],
    ];
    find("sums").replaceChildren(...rows.map(([style, name, value]) => element(
      "div", { class: style }, element("dt", {}, name), element("dd", {}, signed(value)),
    )));
    find("odds").textContent = other === null
      ? `Its score is ${Math.abs(reasons.total).toFixed(1)} nats ${reasons.total < 0 ? "below" : "above"} that of the average class.`
      : odds(run.classes[chosen], run.classes[other], reasons.total);
    find("where").textContent = strongestRegions(reasons);
    const label = `The picture, marked with what speaks for and against ${run.classes[chosen]}. ${strongestRegions(reasons)}`;
    find("evidence").setAttribute("aria-label", label);
  }
}

/** How many times as probable one class is as the other, from the difference of their logits. */
function odds(chosen, other, nats) {
  const [likelier, rarer] = nats < 0 ? [other, chosen] : [chosen, other];
  const factor = Math.exp(Math.abs(nats)), two = Number(factor.toPrecision(2));
  const times = factor < 1e15 ? (two < 10 ? two : grouped(two)) : "more than a million billion";
  return `So ${likelier} is ${times} times as probable as ${rarer}.`;
}

/** Which ninths of the picture speak most for and against the class. */
function strongestRegions({ rows, columns, values }) {
  const sums = new Map();
  values.forEach((value, i) => {
    const row = REGIONS[Math.min(2, Math.floor(3 * Math.floor(i / columns) / rows))];
    const region = row[Math.min(2, Math.floor(3 * (i % columns) / columns))];
    sums.set(region, (sums.get(region) ?? 0) + value);
  });
  const order = [...sums].sort((a, b) => b[1] - a[1]), text = ([region, sum]) => `${region} (${signed(sum)})`;
  const best = order.filter(([, sum]) => sum >= 0.05).slice(0, 2).map(text);
  const worst = order.filter(([, sum]) => sum <= -0.05).slice(-2).reverse().map(text);
  const sentences = [];
  if (best.length) sentences.push(`Most speaks for it at the ${best.join(" and the ")}.`);
  if (worst.length) sentences.push(`Most speaks against it at the ${worst.join(" and the ")}.`);
  return sentences.join(" ");
}

/** The picture, faint, under a mark in each cell: the more a cell contributes, the larger. */
function drawEvidence(canvas, image, { rows, columns, values }, ink) {
  const scale = EVIDENCE / Math.max(image.height, image.width);
  canvas.width = Math.round(scale * image.width);
  canvas.height = Math.round(scale * image.height);
  const across = canvas.width / columns, down = canvas.height / rows, cell = Math.min(across, down);
  const context = canvas.getContext("2d"), small = new OffscreenCanvas(1, 1);
  paint(small, image);
  context.fillStyle = colour("--paper");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  context.globalAlpha = 0.3;
  if (ink?.thin && (ink.tone === "light") === (colour("--scheme") === "light")) context.filter = "invert(1)";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  context.filter = "none";
  context.globalAlpha = 1;
  const most = values.reduce((a, value) => Math.max(a, Math.abs(value)), 0) || 1;
  values.forEach((value, i) => {
    const side = cell * 0.94 * Math.sqrt(Math.abs(value) / most);
    if (side < 1.5) return;
    const x = (i % columns + 0.5) * across - side / 2;
    const y = (Math.floor(i / columns) + 0.5) * down - side / 2;
    if (value > 0) {
      context.fillStyle = colour("--for");
      context.fillRect(x, y, side, side);
    } else {
      context.strokeStyle = colour("--against");
      context.lineWidth = Math.max(1.5, Math.min(4, side / 5));
      const inset = context.lineWidth / 2, s = Math.max(1, side - context.lineWidth);
      context.strokeRect(x + inset, y + inset, s, s);
    }
  });
}

/** A bar for each class, or for the likeliest ones. */
class Bars {
  constructor(run, selected) {
    this.run = run;
    this.all = run.classes.length <= MAX_BARS;
    this.rows = Array.from({ length: this.all ? run.classes.length : LIKELIEST }, (_, k) => {
      const name = element("bdi", { class: "name" }), value = element("span", { class: "value" });
      const bar = element("span", { class: "bar" });
      const button = element("button", { type: "button" },
        name, element("span", { class: "track", "aria-hidden": "true" }, bar), value);
      const row = { k, name, value, bar, button };
      button.addEventListener("click", () => row.k !== null && selected(row.k));
      this.assign(row, k);
      return row;
    });
    find("bars").append(...this.rows.map((row) => element("li", {}, row.button)));
    this.clear();
  }

  assign(row, k) {
    if (row.k === k && row.name.textContent) return;
    row.k = k;
    row.name.textContent = this.run.classes[k];
    row.button.title = `Why ${this.run.classes[k]}?`;
  }

  /** The probabilities; the bar of the answer is marked, in colour if the actual class is known. */
  show(p, likeliest, actual) {
    const order = this.all ? this.rows.map((_, k) => k) : [...p.keys()].sort((a, b) => p[b] - p[a]);
    this.rows.forEach((row, i) => {
      this.assign(row, order[i]);
      row.bar.style.transform = `scaleX(${p[order[i]].toFixed(4)})`;
      row.value.textContent = percent(p[order[i]], 1);
      row.button.classList.toggle("likeliest", order[i] === likeliest);
      row.button.classList.toggle("right", order[i] === actual);
      row.button.classList.toggle("wrong", order[i] === likeliest && actual !== undefined && actual !== likeliest);
    });
  }

  clear() {
    for (const row of this.rows) {
      row.bar.style.transform = "scaleX(0)";
      row.value.textContent = "";
      row.button.classList.remove("likeliest", "right", "wrong");
    }
  }
}
