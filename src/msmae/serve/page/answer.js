// Answers as text and bars. Names come from outside, so everything is set as text, never as markup.
import { say, list, percent, number } from "./strings.js";
import { colour } from "./views.js";

export function element(tag, { text, ...rest } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(rest)) if (value !== undefined) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

export const predictedName = (predicted) =>
  predicted === ";" ? say("nothing_found") : list(predicted.split(";"));

export function likeliest(probabilities) {
  return Object.entries(probabilities).reduce((best, next) => (next[1] > best[1] ? next : best));
}

// What an answer is headed with: the likeliest class, or of several-class models every class found.
export function heading(info, answer) {
  if (info.multilabel) return [predictedName(answer.predicted), null];
  return likeliest(answer.probabilities);
}

function bar(name, value, { inside, tint, threshold, mark }) {
  const fill = element("span", { class: "fill" });
  fill.style.inlineSize = `${100 * value}%`;
  if (tint) fill.style.background = tint;
  const track = element("span", { class: "track", "aria-hidden": "true" }, fill);
  for (const [kind, at] of [["threshold", threshold], ["mark", mark]]) {
    if (at === undefined || at > 1) continue;
    const tick = element("span", { class: kind });
    tick.style.insetInlineStart = `${100 * at}%`;
    track.append(tick);
  }
  const row = element("li", { class: inside ? "inside" : "outside" });
  row.append(
    element("span", { class: "name", text: name }),
    element("span", { class: "value", text: percent(value) }),
    track,
  );
  if (inside) row.append(element("span", { class: "unseen", text: say("in_set") }));
  return row;
}

function bars(info, answer, part) {
  const known = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  const rows = known.map(([name, value]) =>
    bar(name, value, {
      inside: answer.conformal_set ? answer.conformal_set.includes(name) : answer.present?.[name],
      threshold: info.multilabel ? info.thresholds?.[name] : undefined,
      mark: part?.probabilities[name],
    }));
  return element("ul", { class: "bars" }, ...rows);
}

function setSentences(info, answer) {
  if (!answer.conformal_set) {
    const why = info.multilabel ? "no_set_several" : info.coverage === null ? "no_set" : "no_set_here";
    return [element("p", { class: "faint", text: say(why) })];
  }
  const coverage = percent(info.coverage), size = answer.conformal_set.length;
  const classes = list(answer.conformal_set, "disjunction");
  const note = size === info.classes.length ? `${say("set_all")} ` : "";
  return [
    element("p", { class: "set" }, element("strong", { text: say("set", { coverage, classes }) })),
    element("p", { class: "faint", text: note + say("set_note", { coverage }) }),
  ];
}

export function showAnswer(place, info, answer, { part, under } = {}) {
  if (info.task === "segmentation") return showLayers(place, info, answer);
  const [name, value] = heading(info, answer);
  const unsure = answer.conformal_set?.length > 1;
  const head = element("p", { class: unsure ? "verdict unsure" : "verdict" }, element("span", { class: "what", text: name }));
  if (value !== null) head.append(" ", element("span", { class: "how", text: percent(value) }));
  const label = element("p", { class: "faint over", text: under ?? say(info.multilabel ? "found" : unsure ? "most_likely_of" : "most_likely") });
  const parts = [label, head, bars(info, answer, part), ...setSentences(info, answer)];
  if (!info.multilabel && answer.predicted !== name) {
    parts.push(element("p", { class: "flag", text: say("differs", { predicted: predictedName(answer.predicted) }) }));
  }
  place.replaceChildren(...parts, ...flags(answer));
}

function showLayers(place, info, answer) {
  if (!answer.layers) return place.replaceChildren();
  const rows = info.classes.map((name, i) => bar(name, answer.layers[name].share, { inside: true, tint: colour(i) }));
  for (const row of rows) row.querySelector(".unseen").textContent = say("share_of_image");
  const seen = info.classes.filter((name) => answer.layers[name].share > 0);
  place.replaceChildren(
    element("p", { class: "faint over", text: say("outlined") }),
    element("p", { class: "verdict" }, element("span", { text: seen.length ? list(seen) : say("nothing_found") })),
    element("p", { class: "faint over", text: say("share_of_image") }),
    element("ul", { class: "bars" }, ...rows),
    ...flags(answer),
  );
}

function flags(answer) {
  if (!answer.flags?.length) return [];
  return [element("ul", { class: "flags" }, ...answer.flags.map((flag) => element("li", { text: say(`flags.${flag}`) })))];
}

export function showKnob(place, info, whole, part, share) {
  const [before] = heading(info, whole), [after, value] = heading(info, part);
  const key = before === after ? "same" : "changed";
  const text = say(key, { share: percent(share), predicted: after, value: value === null ? "" : percent(value) });
  const times = { some: number(part.milliseconds), all: number(whole.milliseconds) };
  const parts = [
    element("p", { class: key, text: text.replace(", .", ".") }),
    element("p", { class: "faint legend", text: say("legend", { share: percent(share) }) }),
    element("p", { class: "faint", text: say("time", times) }),
  ];
  if (info.selector === "self") parts.push(element("p", { class: "faint", text: say("no_gain") }));
  if (!info.prepared) parts.push(element("p", { class: "faint", text: say("unprepared") }));
  place.replaceChildren(...parts);
}

export function showCases(place, cases) {
  place.replaceChildren(...cases.map(({ label, cosine, picture }) => {
    const words = say("case", { label, cosine: number(cosine) });
    const image = element("img", { src: `data:image/png;base64,${picture}`, alt: words, width: 96, height: 96 });
    return element("li", {}, image, element("span", { text: label }), element("span", { class: "faint", text: number(cosine) }));
  }));
}
