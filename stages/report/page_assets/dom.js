// Elements, numbers as text, and colours from the style sheet. Nothing here, or anywhere else in the
// page, turns text into markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (or properties, or listeners "on...") and children. */
function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
function shape(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const find = (id) => document.getElementById(id);

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** 32-bit floats, lowest byte first, which is the order on every machine that runs a browser. */
const floatsOf = (base64) => Float64Array.from(new Float32Array(bytesOf(base64).buffer));

/** An integer with its thousands separated. */
const grouped = (number) => number.toLocaleString("en-GB");

/** A share as a percentage: 100 % and 0 % only for exactly all and nothing. */
function percent(share, digits = 2) {
  const least = 10 ** -digits;
  if (share > 0 && share * 100 < least / 2) return `< ${least}\u00a0%`;
  if (share < 1 && share * 100 > 100 - least / 2) return `> ${(100 - least).toFixed(digits)}\u00a0%`;
  return `${(share * 100).toFixed(digits)}\u00a0%`;
}

/** An interval of shares. */
const range = (low, high) => `${percent(low)} to ${percent(high)}`;

/** With a sign, and a minus that is as wide as the plus. */
function signed(number) {
  const digits = Math.abs(number).toFixed(1);
  return digits === "0.0" ? digits : `${number < 0 ? "\u2212" : "+"}${digits}`;
}

/** A colour from page.css, as it is now: light, dark or in print. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const drawings = [];

/** Draw now, and again whenever the colours change. */
function drawInColours(draw) {
  draw();
  drawings.push(draw);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
matchMedia("print").addEventListener("change", redrawAll);

function redrawAll() {
  for (const draw of drawings) draw();
}

/** Do several steps of work, each when the browser is idle. */
function whenIdle(steps) {
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 1));
  const next = (deadline) => {
    do steps.shift()?.();
    while (steps.length && deadline?.timeRemaining() > 4);
    if (steps.length) idle(next);
  };
  idle(next);
}
