// Draws a room's timeline on a canvas. Only the visible rows and times are drawn.
import { timeOfDay } from "./lib.js";
import { words } from "./model.js";

export const ROW = 52;
export const AXIS = 24;
const BAR_TOP = 13;
const BAR = 14;
const TEXT = 42; // baseline, from the row's top
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].map((s) => s * 1000);

const NAMES = ["text", "muted", "faint", "line", "grid", "accent", "bar-open", "bar-wait", "bar-done", "bar-none", "overlap", "bad", "surface"];

export function colours(element) {
  const style = getComputedStyle(element);
  return Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

export class Drawing {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.hatch = new Map();
  }

  fit(width, height) {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    if (this.width === width && this.height === height && this.ratio === ratio) return;
    Object.assign(this, { width, height, ratio });
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
  }

  // rows: those of the room, in order. view: { from, to, top, selected, now }, times in epoch milliseconds.
  draw(room, rows, view, palette) {
    const { context: c, width, height } = this;
    this.palette = palette;
    this.view = view;
    this.x = (at) => ((at - view.from) / (view.to - view.from)) * width;
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    c.font = "12px system-ui, sans-serif";
    this.axis();
    const first = Math.max(0, Math.floor(view.top / ROW));
    const last = Math.min(rows.length, Math.ceil((view.top + height) / ROW));
    c.save();
    c.beginPath();
    c.rect(0, AXIS, width, height - AXIS);
    c.clip();
    this.overlaps(room, rows, first, last);
    for (let n = first; n < last; n += 1) this.row(rows[n], AXIS + n * ROW - view.top);
    c.restore();
    this.present();
  }

  axis() {
    const { context: c, view, width, height, palette } = this;
    const perPixel = (view.to - view.from) / width;
    const step = STEPS.find((each) => each / perPixel >= 84) ?? STEPS.at(-1);
    c.strokeStyle = palette.grid;
    c.fillStyle = palette.muted;
    c.lineWidth = 1;
    c.textBaseline = "alphabetic";
    for (let at = Math.ceil(view.from / step) * step; at < view.to; at += step) {
      const x = Math.round(this.x(at)) + 0.5;
      c.beginPath();
      c.moveTo(x, AXIS - 4);
      c.lineTo(x, height);
      c.stroke();
      if (x < width - 56) c.fillText(timeOfDay(at), x + 4, 15);
    }
    c.beginPath();
    c.moveTo(0, AXIS - 0.5);
    c.lineTo(width, AXIS - 0.5);
    c.stroke();
  }

  overlaps(room, rows, first, last) {
    const { context: c, view, palette } = this;
    c.fillStyle = palette.overlap;
    for (const each of room.overlaps.values()) {
      const to = each.to ?? view.now;
      if (to < view.from || each.from > view.to) continue;
      const x = this.x(each.from);
      for (let n = first; n < last; n += 1) {
        if (each.who.has(rows[n].identity)) c.fillRect(x, AXIS + n * ROW - view.top, Math.max(2, this.x(to) - x), ROW - 1);
      }
    }
  }

  row(row, top) {
    const { context: c, view, palette, width } = this;
    c.strokeStyle = palette.grid;
    c.beginPath();
    c.moveTo(0, top + ROW - 0.5);
    c.lineTo(width, top + ROW - 0.5);
    c.stroke();
    for (const span of row.muted) this.span(span, top, palette.faint, "muted", [2, 4]);
    for (const span of row.failed) this.span(span, top, palette.bad, span.what, []);
    const { bars } = row;
    let index = bars.length;
    // bars are in order of their starts; one that began long before may still be visible
    while (index > 0 && (bars[index - 1].start > view.from || (bars[index - 1].end ?? view.now) > view.from)) index -= 1;
    for (; index < bars.length && bars[index].start < view.to; index += 1) this.bar(bars[index], bars[index + 1], top);
  }

  span(span, top, colour, what, dash) {
    const { context: c, view, width } = this;
    const to = span.to ?? view.now;
    if (to < view.from || span.from > view.to) return;
    const from = Math.max(0, this.x(span.from));
    const end = Math.min(width, this.x(to));
    const y = top + BAR_TOP + BAR / 2 + 0.5;
    c.strokeStyle = colour;
    c.fillStyle = colour;
    c.lineWidth = 2;
    c.setLineDash(dash);
    c.beginPath();
    c.moveTo(from, y);
    c.lineTo(end, y);
    c.stroke();
    c.setLineDash([]);
    c.lineWidth = 1;
    if (end - from > 40) this.text(what, from + 2, top + 10, end - from - 4, colour, "", 10);
  }

  bar(bar, next, top) {
    const { context: c, view, palette, width } = this;
    const isOpen = bar.end === null && !bar.closed;
    const end = bar.end ?? (isOpen ? view.now : bar.start + 300);
    const x = this.x(bar.start);
    const w = Math.max(3, this.x(end) - x);
    const { said, guess } = words(bar);
    const state = isOpen ? "bar-open" : bar.text === null ? "bar-wait" : said ? "bar-done" : "bar-none";
    c.fillStyle = palette[state];
    c.beginPath();
    c.roundRect(x, top + BAR_TOP, w, BAR, 3);
    c.fill();
    if (bar.id === view.selected) {
      c.strokeStyle = palette.text;
      c.lineWidth = 2;
      c.stroke();
      c.lineWidth = 1;
    }
    const room = Math.min(width, next ? this.x(next.start) - 6 : width) - Math.max(0, x);
    if (room < 12) return;
    const at = Math.max(2, x);
    if (isOpen) {
      this.text(`${said} ${guess}`.trim(), at, top + TEXT, room, palette.muted, "italic ", 12, true);
      return;
    }
    const used = said ? this.text(said, at, top + TEXT, room, palette.text, "") : 0;
    if (guess) this.text(guess, at + (used && used + 4), top + TEXT, room - used, palette.muted, "italic ");
  }

  // Writes as much of it as fits: its beginning, or its end. Returns its width. Text is drawn, never made into elements.
  text(text, x, y, room, colour, style, size = 12, tail = false) {
    const { context: c } = this;
    if (room < 12) return 0;
    c.save();
    c.font = `${style}${size}px system-ui, sans-serif`;
    c.beginPath();
    c.rect(x, y - 14, room, 20);
    c.clip();
    c.fillStyle = colour;
    const shown = text.length <= 400 ? text : tail ? text.slice(-400) : text.slice(0, 400);
    const used = Math.min(room, c.measureText(shown).width);
    c.fillText(shown, tail ? x + used - c.measureText(shown).width : x, y);
    c.restore();
    return used;
  }

  present() {
    const { context: c, view, palette, height } = this;
    const x = Math.round(this.x(view.now)) - 0.5;
    if (x < 0 || x > this.width) return;
    c.strokeStyle = palette.accent;
    c.beginPath();
    c.moveTo(x, AXIS);
    c.lineTo(x, height);
    c.stroke();
  }
}

// The bar at a place of the canvas, if there is one.
export function barAt(rows, view, width, x, y) {
  if (y < AXIS) return null;
  const row = rows[Math.floor((y - AXIS + view.top) / ROW)];
  if (!row) return null;
  const perPixel = (view.to - view.from) / width;
  const at = view.from + x * perPixel;
  const near = 4 * perPixel;
  return row.bars.findLast((bar) => bar.start - near <= at && (bar.end ?? (bar.closed ? bar.start + 300 : view.now)) + near >= at) ?? null;
}
