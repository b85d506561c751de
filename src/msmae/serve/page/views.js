// What the canvas shows: each view is a function that draws over a context of a given size.
import { say, list, percent } from "./strings.js";

const LONGEST = 1024;
const RAMP = [[0, 40, 12, 84], [0.35, 150, 38, 102], [0.65, 237, 105, 37], [0.85, 251, 180, 26], [1, 252, 255, 164]];
const COLOURS = ["#35c4e8", "#ff9d5c", "#b79bff", "#69dd8d", "#ff8fcb", "#ffe34d", "#8fb0ff", "#f0b090"];

export const colour = (index) => COLOURS[index % COLOURS.length];

export function surface(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

export function picture(base64) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = reject;
    image.src = `data:image/png;base64,${base64}`;
  });
}

export function levelsOf(grey) {
  const bytes = Uint8Array.from(atob(grey.levels), (letter) => letter.charCodeAt(0));
  return new Uint16Array(bytes.buffer);
}

// A deep image through a window: what is drawn as the image.
export function windowed(grey, levels, { centre, width }) {
  const canvas = surface(grey.width, grey.height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(grey.width, grey.height);
  const black = centre - width / 2;
  for (let i = 0; i < levels.length; i++) {
    const value = (255 * (grey.low + grey.step * levels[i] - black)) / width;
    pixels.data[4 * i] = pixels.data[4 * i + 1] = pixels.data[4 * i + 2] = value;
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function heat(map) {
  const canvas = surface(map[0].length, map.length);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  const values = map.flat();
  const low = Math.min(...values), range = Math.max(Math.max(...values) - low, 1e-9);
  values.forEach((value, i) => {
    const at = (value - low) / range;
    const up = Math.max(1, RAMP.findIndex(([stop]) => stop >= at));
    const [from, ...first] = RAMP[up - 1], [to, ...second] = RAMP[up];
    const mix = (at - from) / (to - from);
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = first[c] + mix * (second[c] - first[c]);
    pixels.data[4 * i + 3] = 255 * (0.12 + 0.68 * at);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function drawKept(context, width, height, base, kept, [rows, columns]) {
  context.drawImage(base, 0, 0, width, height);
  if (kept === null) return;
  context.fillStyle = "rgba(9, 14, 19, 0.86)";
  context.fillRect(0, 0, width, height);
  const high = height / rows, wide = width / columns;
  context.save();
  context.beginPath();
  for (const patch of kept) context.rect((patch % columns) * wide, Math.floor(patch / columns) * high, wide, high);
  context.clip();
  context.drawImage(base, 0, 0, width, height);
  context.strokeStyle = "rgba(255, 255, 255, 0.28)";
  context.lineWidth = Math.max(1, width / 700);
  context.stroke();
  context.restore();
}

// The mask's edge: the mask made wider by a few pixels, less the mask.
function drawOutline(context, width, height, mask, tint) {
  const inside = surface(width, height), edge = surface(width, height);
  const fill = inside.getContext("2d"), line = edge.getContext("2d");
  fill.drawImage(mask, 0, 0, width, height);
  const pixels = fill.getImageData(0, 0, width, height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i] > 127 ? 255 : 0;
  fill.putImageData(pixels, 0, 0);
  fill.globalCompositeOperation = "source-in";
  fill.fillStyle = tint;
  fill.fillRect(0, 0, width, height);
  const thick = Math.max(2, width / 260);
  for (let turn = 0; turn < 16; turn++) {
    const angle = (turn * Math.PI) / 8;
    line.drawImage(inside, thick * Math.cos(angle), thick * Math.sin(angle));
  }
  line.globalCompositeOperation = "destination-out";
  line.drawImage(inside, 0, 0);
  context.globalAlpha = 0.25;
  context.drawImage(inside, 0, 0);
  context.globalAlpha = 1;
  context.drawImage(edge, 0, 0);
}

// The views of one image. `whole` is the answer from all patches, `part` the one at the knob, `base` what to draw.
export function viewsOf(info, whole, part, base, share) {
  const all = info.grid[0] * info.grid[1];
  const views = [{
    name: "image",
    caption: say("captions.image", whole),
    draw: (context, width, height) => context.drawImage(base, 0, 0, width, height),
  }];
  if (whole.map) {
    const hot = heat(whole.map);
    views.push({
      name: "attention",
      caption: say("captions.attention"),
      draw: (context, width, height) => {
        context.drawImage(base, 0, 0, width, height);
        context.drawImage(hot, 0, 0, width, height);
      },
    });
  }
  if (part) {
    const whole = { merge: "kept_merged", smaller: "kept_smaller" }[info.selector];
    const caption = whole ? whole : part.kept === null ? "kept_all" : "kept";
    views.push({
      name: "kept",
      caption: say(`captions.${caption}`, { kept: part.kept?.length, all, share: percent(share) }),
      draw: (context, width, height) => drawKept(context, width, height, base, part.kept, info.grid),
    });
  }
  if (part?.reconstructed) {
    views.push({
      name: "reconstruction",
      caption: say("captions.reconstruction"),
      draw: (context, width, height) => context.drawImage(part.reconstructed, 0, 0, width, height),
    });
  }
  if (whole.masks) {
    const seen = info.classes.filter((name) => whole.layers[name].share > 0);
    views.push({
      name: "outline",
      caption: seen.length ? say("captions.outline", { classes: list(seen) }) : say("captions.outline_none"),
      draw: (context, width, height) => {
        context.drawImage(base, 0, 0, width, height);
        info.classes.forEach((name, i) => drawOutline(context, width, height, whole.masks[name], colour(i)));
      },
    });
  }
  return views;
}

// Two neighbouring views, one faded over the other: position 1.25 is view 1 with a quarter of view 2.
export function paint(canvas, views, position, image) {
  const scale = LONGEST / Math.max(image.width, image.height);
  const width = Math.round(image.width * scale), height = Math.round(image.height * scale);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.globalAlpha = 1;
  const first = Math.min(Math.floor(position), views.length - 1), fade = position - first;
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  views[first].draw(context, width, height);
  if (fade > 0.005 && first + 1 < views.length) {
    const over = surface(width, height), above = over.getContext("2d");
    above.imageSmoothingQuality = "high";
    views[first + 1].draw(above, width, height);
    context.globalAlpha = fade;
    context.drawImage(over, 0, 0);
    context.globalAlpha = 1;
  }
}
