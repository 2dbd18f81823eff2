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
  const tryOut = trial && ((test) => {
    trial.show(test);
    find("try").scrollIntoView();
  });
  const list = new PictureList(run, tryOut);
  find("matrix-place").append(confusionMatrix(run, (...cell) => list.listCell(...cell)));
  showClasses(run);
  find("curves").append(...curves(run.history));
  const [chart, table] = calibration(run.reliability, run.bins);
  find("calibration").prepend(chart);
  find("calibration").lastElementChild.append(table);
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
  run.tests = run.tests.map(([name, actual, predicted, confidence, probability], i) => {
    const picture = small(i), full = run.pictures.fullSize ? picture : null;
    return { name, actual, predicted, confidence, probability, picture, full };
  });
  if (!run.pictures.fullSize) {
    const full = cut(run.picks.bytes, run.model.shape);
    [...run.picks.right, ...run.picks.wrong].forEach((test, i) => { run.tests[test].full = full(i); });
  }
  for (const kind of ["right", "wrong"]) run.picks[kind] = run.picks[kind].map((test) => run.tests[test]);
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

const share = (value) => (value === null ? "\u2013" : percent(value));
const COLUMNS = { // of the table of classes, each with its values as text
  pictures: grouped,
  precision: share,
  recall: share,
  "95 % interval of recall": (interval) => (interval ? range(...interval) : "\u2013"),
  F1: share,
};

function showClasses(run) {
  const rows = run.perClass.map((values, k) => ({ k, values: [k, ...values] }));
  const body = element("tbody", {}, ...rows.map((row) => {
    const cells = Object.values(COLUMNS).map((text, i) => element("td", {}, text(row.values[i + 1])));
    row.line = element("tr", {}, element("th", { scope: "row" }, named(run, row.k)), ...cells);
    return row.line;
  }));
  const heads = ["class", ...Object.keys(COLUMNS)].map((name, column) => {
    const head = element("th", { scope: "col", "aria-sort": column ? "none" : "ascending" });
    const sort = () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const sign = descending ? -1 : 1, key = ({ values }) => [values[column] ?? -1].flat()[0];
      rows.sort((a, b) => sign * (key(a) - key(b)) || a.k - b.k);
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
