// The confusion matrix, a grid that the arrow keys move through, and the pictures behind a cell.

const LISTED_AT_FIRST = 24; // mistakes, before a cell is selected
const MAX_WITH_NUMBERS = 24; // classes; with more, a cell is too small for its number

/** The name of class k, with its own text direction. */
function named(run, k) {
  return element("bdi", { class: "name", title: run.classes[k] }, run.classes[k]);
}

/** The matrix of run.confusion: {shown: classes, counts: (shown, shown), of: images by class}. */
function confusionMatrix(run, selected) {
  const { shown, counts, of } = run.confusion;
  const table = element("table", {
    role: "grid", id: "matrix", class: shown.length > MAX_WITH_NUMBERS ? "dense" : "",
    "aria-label": "Confusion matrix: a row for each actual class, a column for each answer",
  });
  const heads = shown.map((k) => element(
    "th", { role: "columnheader", scope: "col" }, element("span", {}, named(run, k)),
  ));
  const corner = element("td", { class: "corner" }, "actual \u2193\nanswer \u2192");
  table.append(element("thead", {}, element("tr", {}, corner, ...heads)));
  const shares = counts.map((row, i) => row.map((n) => (of[shown[i]] ? n / of[shown[i]] : 0)));
  const most = Math.max(...shares.map((row, i) => Math.max(...row.map((s, j) => (i === j ? 0 : s))))) || 1;
  const cells = shown.map((actual, i) => shown.map((predicted, j) => {
    const n = counts[i][j], right = i === j;
    const cell = element("td", {
      role: "gridcell", tabindex: i || j ? -1 : 0, "aria-selected": "false",
      "data-actual": run.classes[actual], "data-predicted": run.classes[predicted],
      class: `${right ? "right" : "wrong"}${n ? "" : " none"}`,
      "aria-label": right
        ? `${n} of ${run.classes[actual]} classified correctly`
        : `${n} of ${run.classes[actual]} taken for ${run.classes[predicted]}`,
    }, shown.length > MAX_WITH_NUMBERS ? "" : n || "\u00b7");
    cell.style.setProperty("--share", (right ? shares[i][j] : Math.sqrt(shares[i][j] / most)).toFixed(3));
    return cell;
  }));
  const body = element("tbody", {});
  cells.forEach((row, i) => body.append(element(
    "tr", {}, element("th", { role: "rowheader", scope: "row" }, named(run, shown[i])), ...row,
  )));
  table.append(body);

  const position = (cell) => [cell.parentElement.rowIndex - 1, cell.cellIndex - 1];
  const select = (cell) => {
    for (const other of table.querySelectorAll("[aria-selected=true]")) {
      other.setAttribute("aria-selected", "false");
    }
    cell.setAttribute("aria-selected", "true");
    const [i, j] = position(cell);
    selected(shown[i], shown[j], counts[i][j]);
  };
  const focus = (cell) => {
    table.querySelector("[tabindex='0']").tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
  };
  table.addEventListener("click", ({ target }) => {
    const cell = target.closest("[role=gridcell]");
    if (!cell) return;
    focus(cell);
    select(cell);
  });
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("[role=gridcell]");
    if (!cell) return;
    const [i, j] = position(cell), last = shown.length - 1;
    const moves = {
      ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1],
      Home: [event.ctrlKey ? 0 : i, 0], End: [event.ctrlKey ? last : i, last],
    };
    if (event.key in moves) {
      const [row, column] = moves[event.key].map((index) => Math.min(last, Math.max(0, index)));
      focus(cells[row][column]);
    } else if (event.key === "Enter" || event.key === " ") select(cell);
    else return;
    event.preventDefault();
  });
  return table;
}

/** The list of pictures, of all mistakes or of one cell; `tryOut` shows a picture to the model. */
class PictureList {
  constructor(run, tryOut) {
    Object.assign(this, { run, tryOut });
    this.wrong = run.tests.filter((test) => test.actual !== test.predicted);
    find("all-mistakes").addEventListener("click", () => {
      for (const cell of document.querySelectorAll("#matrix [aria-selected=true]")) {
        cell.setAttribute("aria-selected", "false");
      }
      this.listMistakes(this.wrong.length);
    });
    this.listMistakes(LISTED_AT_FIRST);
  }

  listMistakes(limit) {
    const listed = this.wrong.slice(0, limit), all = this.run.errors;
    this.list(["The worst mistakes"], listed, all === 0
      ? "The model makes no mistakes on these images."
      : `${grouped(listed.length)} of ${grouped(all)}, as actual class \u2192 answer, the worst first.`);
    find("all-mistakes").hidden = listed.length === this.wrong.length;
  }

  listCell(actual, predicted, number) {
    const listed = this.run.tests.filter((t) => t.actual === actual && t.predicted === predicted);
    const right = actual === predicted;
    let note = number === 1 ? "1 image." : `${grouped(number)} images, the worst first.`;
    if (!number) note = "No images.";
    else if (listed.length < number) {
      const which = right ? "those it was least sure of, and two more" : "the worst ones";
      note = `The page holds ${grouped(listed.length)} of these ${grouped(number)} images: ${which}.`;
    }
    this.list([
      named(this.run, actual),
      ...(right ? [" classified correctly"] : [" taken for ", named(this.run, predicted)]),
    ], listed, note);
    find("all-mistakes").hidden = false;
  }

  list(title, tests, note) {
    find("pictures-title").replaceChildren(...title);
    find("pictures-note").textContent = note;
    find("pictures").replaceChildren(...tests.map((test) => this.item(test)));
  }

  item(test) {
    const { run } = this, right = test.actual === test.predicted;
    const label = `${test.name}: ${run.classes[test.actual]}, answer ${run.classes[test.predicted]}`;
    const canvas = pictureCanvas(test.picture, label);
    const caption = [
      element("span", { class: "verdict" }, named(run, test.actual),
        ...(right ? [] : [" \u2192 ", named(run, test.predicted)])),
      element("span", {}, `answer ${percent(test.confidence, 1)}`),
    ];
    if (!right) caption.push(element("span", { class: "quiet" }, `actual ${percent(test.probability, 1)}`));
    caption.push(element(
      "span", { class: "quiet name path", title: test.name }, element("bdi", { dir: "ltr" }, test.name),
    ));
    const content = this.tryOut && test.full
      ? element("button", { type: "button", title: "Try it", onclick: () => this.tryOut(test) }, canvas)
      : canvas;
    return element("li", { class: "picture" }, content, ...caption);
  }
}
