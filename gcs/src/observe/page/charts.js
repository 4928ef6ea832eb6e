// Lines over the last five minutes, as SVG. A chart keeps its points itself; whoever cannot see it has its label, and the numbers beside it.

const SPAN_MS = 5 * 60 * 1000;
const WIDTH = 400;
const HEIGHT = 110;
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A number for people: three digits that count. */
export function shortly(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export class Chart {
  /** `series` are the names of at most two lines. */
  constructor(svg, title, series) {
    this.svg = svg;
    this.title = title;
    this.series = series;
    this.points = [];
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
  }

  /** `values`: one for each line; null where there is none. */
  add(at, values) {
    this.points.push({ at, values });
    while (this.points.length > 0 && this.points[0].at < at - SPAN_MS) this.points.shift();
    this.draw(at);
  }

  draw(now) {
    const known = this.points.flatMap((point) => point.values).filter((value) => value !== null);
    const top = Math.max(1, ...known);
    const x = (at) => WIDTH - ((now - at) / SPAN_MS) * WIDTH;
    const y = (value) => HEIGHT - 2 - (value / top) * (HEIGHT - 18);
    const children = [
      element("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT - 2, y2: HEIGHT - 2 }),
      element("text", { x: 2, y: 11 }, shortly(top)),
    ];
    this.series.forEach((_, number) => {
      const line = this.points
        .filter((point) => point.values[number] !== null)
        .map((point) => `${x(point.at).toFixed(1)},${y(point.values[number]).toFixed(1)}`);
      if (line.length > 1) children.push(element("polyline", { class: number === 0 ? "first" : "second", points: line.join(" ") }));
    });
    this.svg.replaceChildren(...children);
    const last = this.points.at(-1)?.values ?? [];
    const said = this.series.map((name, number) => `${name} ${shortly(last[number])}`).join(", ");
    this.svg.setAttribute("aria-label", `${this.title}, last five minutes: now ${said}; highest ${shortly(top)}`);
  }
}
