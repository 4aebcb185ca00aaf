// Colours of the theme and of what is drawn, hatches, and text that fits.

const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const SMALL = FONT.replace("12px", "11px");
const BOLD = `600 ${FONT}`;
const theme = {};

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "muted", "line", "plot", "band", "path", "dark"]) {
    theme[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

const channels = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

function luminance(colour) {
  const [red, green, blue] = channels(colour).map((value) => {
    const c = value / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** A look's colours as they are drawn: on a dark page greys are inverted, dark colours lighter. */
function coloured(look) {
  const [red, green, blue] = channels(look.colours[0]);
  const change =
    red === green && green === blue
      ? (value) => 255 - value
      : luminance(look.colours[0]) < 0.09
        ? (value) => value + 0.35 * (255 - value)
        : null;
  const hex = (value) => Math.round(value).toString(16).padStart(2, "0");
  const dark = (colour) => `#${channels(colour).map(change).map(hex).join("")}`;
  look.shown = theme.dark && change ? look.colours.map(dark) : look.colours;
}

const hatches = new Map();

/** A pattern of lines or dots in the ink of hatches, for /, \, x, +, - and . */
function hatch(context, mark) {
  if (hatches.has(mark)) return hatches.get(mark);
  const size = 6;
  const scale = 2;
  const tile = document.createElement("canvas");
  tile.width = tile.height = size * scale;
  const pen = tile.getContext("2d");
  pen.scale(scale, scale);
  pen.strokeStyle = pen.fillStyle = "#00000090";
  pen.lineWidth = 0.9;
  if ("/x".includes(mark)) [-size, 0, size].forEach((x) => drawLine(pen, [x, size], [x + size, 0]));
  if ("\\x".includes(mark)) [-size, 0, size].forEach((x) => drawLine(pen, [x, 0], [x + size, size]));
  if ("+-".includes(mark)) drawLine(pen, [0, 3], [size, 3]);
  if (mark === "+") drawLine(pen, [3, 0], [3, size]);
  if (mark === ".") pen.fillRect(2, 2, 1.6, 1.6);
  const pattern = context.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(1 / scale));
  hatches.set(mark, pattern);
  return pattern;
}

/** Fill the path with a look's colour and hatch. */
function fillWith(context, look, colour) {
  context.fillStyle = colour;
  context.fill();
  if (!look.hatch) return;
  context.fillStyle = hatch(context, look.hatch);
  context.fill();
}

/** Black or white, whichever is easier to read on this colour. */
const inkOn = (colour) => ((luminance(colour) + 0.05) ** 2 > 0.0525 ? "#000" : "#fff");

const textWidth = (context, text) => context.measureText(text).width;

/** Draw a line through these points. */
function drawLine(context, ...points) {
  context.beginPath();
  for (const point of points) context.lineTo(...point);
  context.stroke();
}

/** The first of the texts that fits into the width, else "". */
const fitting = (context, texts, width) => texts.find((text) => textWidth(context, text) <= width) || "";

/** The text, or as much of it as fits, with an ellipsis. */
function shortened(context, text, width) {
  for (let length = text.length; textWidth(context, text) > width && length > 1; length -= 1) {
    text = `${text.slice(0, length - 1).trimEnd()}…`;
  }
  return text;
}

/** A legend's swatch. */
function swatchOf(look) {
  const canvas = document.createElement("canvas");
  canvas.className = "swatch";
  drawSwatch(canvas, look);
  return canvas;
}

function drawSwatch(canvas, look) {
  canvas.width = 44;
  canvas.height = 24;
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  context.rect(0, 0, 22, 12);
  fillWith(context, look, look.shown[0]);
}
