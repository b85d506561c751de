// The page: files in, requests, and which part shows what.
import { say, percent, number, list, fillIn } from "./strings.js";
import { levelsOf, paint, picture, surface, viewsOf, windowed } from "./views.js";
import { element, heading, showAnswer, showCases, showKnob } from "./answer.js";

const $ = (id) => document.getElementById(id);
const state = { info: null, token: "", files: [], whole: null, part: null, shown: 0, position: 0, keep: 0.25, views: [] };

class Problem extends Error {
  constructor(body, status) {
    super(body.error);
    Object.assign(this, body, { status });
  }
}

async function ask(path, options = {}) {
  const headers = state.token ? { Authorization: `Bearer ${state.token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ code: "gone", error: "" }, 0);
  }
  const body = await response.json().catch(() => ({ code: "other", error: response.statusText }));
  if (!response.ok) throw new Problem(body, response.status);
  return body;
}

function tellProblem(problem) {
  if (problem.status === 401) {
    $("token").hidden = false;
    $("token-field").focus();
    if (state.token) alertText(say("token_wrong"));
    return;
  }
  const limits = state.info?.limits ?? {};
  const limit = { too_large: Math.floor(limits.upload_bytes / 2 ** 20), too_many: limits.files }[problem.code];
  const known = ["too_large", "too_many", "patients", "busy", "slow", "gone"].includes(problem.code);
  const lines = problem.code === "unreadable"
    ? problem.files.map((file) => say("errors.unreadable", file))
    : [known ? say(`errors.${problem.code}`, { limit }) : say("errors.other", { error: problem.message })];
  alertText(...lines);
}

function alertText(...lines) {
  $("alert").hidden = lines.length === 0;
  $("alert").replaceChildren(...lines.map((text) => element("p", { text })));
}

// Files

function check(files) {
  const { files: most, upload_bytes } = state.info.limits;
  if (files.length > most) throw new Problem({ code: "too_many" }, 413);
  if (files.reduce((sum, file) => sum + file.size, 0) > upload_bytes) throw new Problem({ code: "too_large" }, 413);
}

function request(keep, signal) {
  const form = new FormData();
  for (const file of state.files) form.append("files", file, file.name || "pasted.png");
  form.append("keep", keep);
  form.append("pictures", "true");
  return ask("predict", { method: "POST", body: form, signal });
}

async function add(files) {
  if (!files.length || !state.info) return;
  const before = state.files;
  alertText();
  $("status").textContent = say("working");
  document.body.classList.add("working");
  try {
    check([...before, ...files]);
    state.files = [...before, ...files];
    await predictAll();
  } catch (problem) {
    const bad = problem.code === "unreadable" ? problem.files.map((file) => file.index) : null;
    state.files = bad ? state.files.filter((_, i) => !bad.includes(i)) : before;
    if (bad && state.files.length > before.length) await predictAll().catch(tellProblem);
    tellProblem(problem);
    $("status").textContent = "";
  } finally {
    document.body.classList.remove("working");
  }
}

async function predictAll() {
  const whole = await request(1);
  state.part = state.info.task === "classification" ? await request(state.keep) : null;
  for (const image of whole.images) {
    image.base = await picture(image.picture);
    if (image.grey) {
      image.levels = levelsOf(image.grey);
      image.window = { ...image.grey.window };
    }
    if (image.layers) {
      const masks = state.info.classes.map(async (name) => [name, await picture(image.layers[name].mask)]);
      image.masks = Object.fromEntries(await Promise.all(masks));
    }
  }
  await reconstructions(state.part);
  state.whole = whole;
  state.shown = whole.images.length - 1;
  $("welcome").hidden = true;
  $("work").hidden = false;
  show();
  announce();
}

async function reconstructions(part) {
  for (const image of part?.images ?? []) {
    if (image.reconstruction) image.reconstructed = await picture(image.reconstruction);
  }
}

function announce() {
  const image = state.whole.images[state.shown];
  if (image.layers) {
    const seen = state.info.classes.filter((name) => image.layers[name].share > 0);
    $("status").textContent = seen.length ? say("done_outline", { classes: list(seen) }) : say("captions.outline_none");
    return;
  }
  const [predicted, value] = heading(state.info, state.whole.images.length > 1 ? state.whole.patient : image);
  $("status").textContent = say("done", { predicted, value: value === null ? "" : percent(value) });
}

// Showing

function show() {
  const { info, whole, part, shown } = state;
  const image = whole.images[shown], some = part?.images[shown];
  showThumbs();
  $("patient").hidden = whole.images.length < 2 || info.task === "segmentation";
  if (!$("patient").hidden) {
    const under = say("patient_of", { images: whole.images.length });
    showAnswer($("patient-answer"), info, whole.patient, { under });
  }
  $("answer-title").textContent = whole.images.length > 1 ? say("answer_of", { number: shown + 1 }) : say("answer");
  showAnswer($("image-answer"), info, image, { part: some });
  showPart();
  $("cases").hidden = !image.neighbours;
  if (image.neighbours) showCases($("cases-list"), image.neighbours);
  showWindow(image);
  draw();
}

function showPart() {
  const { info, whole, part, shown, keep } = state;
  $("knob").hidden = !part;
  if (!part) return;
  const all = info.grid[0] * info.grid[1], kept = Math.floor(keep * all + 1e-9);
  const words = say("kept_of", { share: percent(keep), kept, all });
  $("keep-value").textContent = words;
  $("keep").setAttribute("aria-valuetext", words);
  showKnob($("knob-answer"), info, whole.images[shown], part.images[shown], keep);
}

function showThumbs() {
  const many = state.whole.images.length > 1;
  $("thumbs").replaceChildren(...state.whole.images.map((image, i) => {
    const small = surface(64, 64), scale = 64 / Math.min(image.base.width, image.base.height);
    const wide = image.base.width * scale, high = image.base.height * scale;
    small.getContext("2d").drawImage(image.base, (64 - wide) / 2, (64 - high) / 2, wide, high);
    const label = say("thumb", { number: i + 1, name: image.name });
    const button = element("button", { type: "button", "aria-pressed": String(i === state.shown), "aria-label": label, title: image.name }, small);
    button.addEventListener("click", () => {
      state.shown = i;
      show();
      $("thumbs").children[i].focus();
    });
    return button;
  }));
  $("thumbs").hidden = !many;
}

function draw() {
  const image = state.whole.images[state.shown], part = state.part?.images[state.shown];
  const base = image.levels ? windowed(image.grey, image.levels, image.window) : image.base;
  state.views = viewsOf(state.info, image, part, base, state.keep);
  state.position = Math.min(state.position, state.views.length - 1);
  $("view").max = state.views.length - 1;
  $("stops").replaceChildren(...state.views.map(({ name }, i) => {
    const long = say(`views.${name}`), short = name === "kept" ? say("short.kept") : long;
    const words = [element("span", { class: "long", text: long }), element("span", { class: "short", text: short })];
    const button = element("button", { type: "button", "aria-label": long }, ...words);
    button.style.setProperty("--at", i / Math.max(1, state.views.length - 1));
    button.addEventListener("click", () => glide(i));
    return button;
  }));
  move(state.position);
}

function move(position) {
  const { views } = state, image = state.whole.images[state.shown];
  state.position = position;
  $("view").value = position;
  paint($("canvas"), views, position, image);
  const nearest = views[Math.round(position)], name = say(`views.${nearest.name}`);
  const first = Math.floor(position), between = Math.abs(position - Math.round(position)) > 0.05;
  const words = between
    ? say("between", { first: say(`views.${views[first].name}`), second: say(`views.${views[first + 1].name}`) })
    : name;
  $("view").setAttribute("aria-valuetext", words);
  $("caption").textContent = nearest.caption;
  $("canvas").setAttribute("aria-label", say("canvas", { view: name, name: image.name, caption: nearest.caption }));
  [...$("stops").children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === Math.round(position))));
}

function glide(target) {
  const from = state.position, start = performance.now();
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return move(target);
  const step = (now) => {
    const done = Math.min(1, (now - start) / 260);
    move(from + (target - from) * (1 - (1 - done) ** 3));
    if (done < 1) requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

// The window of a deep image

function showWindow(image) {
  $("window").hidden = !image.grey;
  if (!image.grey) return;
  const { low, step, window, named } = image.grey, range = step * 65535;
  const fineness = range > 20 ? 1 : range / 200;
  Object.assign($("centre"), { min: low, max: low + range, step: fineness });
  Object.assign($("width"), { min: fineness, max: Math.max(range, window.width), step: fineness });
  const choices = Object.entries({ file: window, ...named });
  $("named").replaceChildren(...choices.map(([name, chosen]) => {
    const button = element("button", { type: "button", text: say(`windows.${name}`) });
    button.addEventListener("click", () => setWindow(chosen));
    return button;
  }));
  setWindow(image.window, false);
}

function setWindow({ centre, width }, redraw = true) {
  const image = state.whole.images[state.shown];
  image.window = { centre, width: Math.max(Number(width), 1e-6) };
  $("centre").value = centre;
  $("width").value = width;
  $("centre-value").textContent = number(centre);
  $("width-value").textContent = number(width);
  if (redraw) draw();
}

function dragWindow() {
  let last = null;
  const canvas = $("canvas");
  canvas.addEventListener("pointerdown", (event) => {
    if (!state.whole?.images[state.shown].grey) return;
    last = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const { grey, window } = state.whole.images[state.shown], unit = (grey.step * 65535) / 400;
    const width = Math.max(unit, window.width + unit * (event.clientX - last[0]));
    const centre = window.centre + unit * (event.clientY - last[1]);
    last = [event.clientX, event.clientY];
    setWindow({ centre, width });
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));
}

// The knob

let turning = null, waiting = 0;

function turn() {
  state.keep = Math.max(Number($("keep").value) / 100, state.info.least_keep);
  $("keep-value").textContent = percent(state.keep);
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    turning?.abort();
    turning = new AbortController();
    try {
      const part = await request(state.keep, turning.signal);
      await reconstructions(part);
      state.part = part;
      showPart();
      showAnswer($("image-answer"), state.info, state.whole.images[state.shown], { part: part.images[state.shown] });
      draw();
      $("status").textContent = $("knob-answer").firstChild.textContent;
    } catch (problem) {
      if (problem.name !== "AbortError") tellProblem(problem);
    }
  }, 120);
}

// Start

function listen() {
  for (const id of ["choose", "add"]) $(id).addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => {
    add([...$("files").files]);
    $("files").value = "";
  });
  $("again").addEventListener("click", () => {
    Object.assign(state, { files: [], whole: null, part: null, shown: 0, position: 0 });
    $("work").hidden = true;
    $("welcome").hidden = false;
    alertText();
    $("choose").focus();
  });
  document.addEventListener("paste", (event) => add([...(event.clipboardData?.files ?? [])]));
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") add([...event.dataTransfer.files]);
    });
  }
  $("view").addEventListener("input", () => move(Number($("view").value)));
  $("view").addEventListener("change", () => {
    const near = Math.round(state.position);
    if (Math.abs(state.position - near) < 0.08) move(near);
  });
  $("view").addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    const step = event.shiftKey ? state.position + 0.1 * way : way > 0 ? Math.floor(state.position + 1) : Math.ceil(state.position - 1);
    move(Math.min(Math.max(step, 0), state.views.length - 1));
  });
  $("keep").addEventListener("input", turn);
  for (const id of ["centre", "width"]) {
    $(id).addEventListener("input", () => setWindow({ centre: Number($("centre").value), width: Number($("width").value) }));
  }
  $("token").addEventListener("submit", (event) => {
    event.preventDefault();
    state.token = $("token-field").value;
    begin();
  });
  dragWindow();
}

async function begin() {
  try {
    state.info = await ask("model");
  } catch (problem) {
    tellProblem(problem);
    return;
  }
  $("token").hidden = true;
  alertText();
  const { task, multilabel, classes, least_keep, prepared } = state.info;
  const key = task === "segmentation" ? "about_outline" : multilabel ? "about_several" : "about";
  $("about").textContent = say(key, { classes: list(classes) });
  $("keep").min = Math.max(5, Math.ceil(least_keep * 20) * 5);
  state.keep = prepared ? Math.max(0.25, least_keep) : 1;
  $("keep").value = 100 * state.keep;
  document.body.classList.add("ready");
}

fillIn(document);
state.token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
if (state.token) history.replaceState(null, "", location.pathname);
listen();
begin();
