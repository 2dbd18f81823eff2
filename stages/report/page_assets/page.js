// Puts the page together: takes what Python measured from the JSON in the page, and fills in
// page.html.

function start() {
  const run = JSON.parse(find("run").textContent);
  readPictures(run);
  showParams(run);
  const model = run.weights ? readModel(run) : null;
  const trial = model ? new Trial(run, model) : null;
  if (!trial) {
    find("try").remove();
    find("looks").remove();
    for (const link of document.querySelectorAll("a[href='#try'], a[href='#looks']")) link.remove();
  }
  const use = trial && ((test) => {
    trial.use(test);
    find("try").scrollIntoView();
  });
  const list = new PictureList(run, use);
  find("matrix-place").append(confusionMatrix(run, (...cell) => list.listCell(...cell)));
  showClasses(run);
  find("curves").append(...curves(run.history));
  find("calibration").append(...calibration(run.reliability, run.bins));
  if (model) find("templates").append(...templates(run, model));
  find("templates")?.classList.toggle("many", run.classes.length > 20);
  showCard(run);
}

/** Give each test in the page its picture; those of `picks` get it in full size. */
function readPictures(run) {
  const cut = (base64, [channels, height, width]) => {
    const bytes = bytesOf(base64), size = channels * height * width;
    return (i) => ({ channels, height, width, data: bytes.subarray(i * size, (i + 1) * size) });
  };
  const small = cut(run.pictures.bytes, run.pictures.shape);
  const whole = run.pictures.whole;
  run.tests = run.tests.map(([name, actual, predicted, confidence, probability], i) => {
    const picture = small(i);
    return { name, actual, predicted, confidence, probability, picture, whole, full: whole ? picture : null };
  });
  const full = whole ? null : cut(run.picks.bytes, run.model.shape);
  [...run.picks.right, ...run.picks.wrong].forEach((at, i) => {
    if (full) Object.assign(run.tests[at], { full: full(i), whole: true });
  });
  for (const kind of ["right", "wrong"]) run.picks[kind] = run.picks[kind].map((at) => run.tests[at]);
}

/** Facts as a list of terms, each with its description. */
function terms(rows) {
  return element("dl", {}, ...rows.map(([name, value]) => element(
    "div", {}, element("dt", {}, name), element("dd", {}, element("bdi", {}, value)),
  )));
}

function showParams(run) {
  find("params").append(...run.params.map(([section, rows]) => element(
    "section", {}, element("h3", {}, section), terms(rows),
  )));
}

const COLUMNS = ["pictures", "precision", "recall", "F1"];

function showClasses(run) {
  const rows = run.perClass.map((values, k) => ({ k, values: [k, ...values] }));
  const body = element("tbody", {}, ...rows.map((row) => {
    const cells = row.values.slice(1).map((value, i) => element(
      "td", {}, i ? (value === null ? "\u2013" : percent(value)) : whole(value),
    ));
    row.line = element("tr", {}, element("th", { scope: "row" }, named(run, row.k)), ...cells);
    return row.line;
  }));
  const heads = ["class", ...COLUMNS].map((name, column) => {
    const head = element("th", { scope: "col", "aria-sort": column ? "none" : "ascending" });
    const sort = () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const sign = descending ? -1 : 1;
      rows.sort((a, b) => sign * ((a.values[column] ?? -1) - (b.values[column] ?? -1)) || a.k - b.k);
      body.append(...rows.map((row) => row.line));
    };
    head.append(element("button", { type: "button", onclick: sort }, name));
    return head;
  });
  const head = element("thead", {}, element("tr", {}, ...heads));
  find("classes-place").append(element("table", { id: "classes-table" }, head, body));
}

function showCard(run) {
  find("card-text").append(...run.card.map(({ title, text, rows }) => element(
    "section", {}, element("h3", {}, title),
    ...text.map((paragraph) => element("p", {}, element("bdi", {}, paragraph))),
    ...(rows.length ? [terms(rows)] : []),
  )));
}

start();
