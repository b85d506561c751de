// Every word of the page. To translate it, translate this file; {words in braces} are filled in.
export const language = "en";

export const strings = {
  skip: "Skip to the page",
  notice: "Research software, not a medical device",
  title: "See what the model sees",
  lead: "Give it an image. It answers with its uncertainty, shows where it looked, and says what it would answer from a quarter of the image.",
  choose: "Choose images",
  or_drop: "or drop them here, or paste one",
  formats: "PNG, JPEG, TIFF or DICOM. Several images count as one patient.",
  about: "The model tells apart: {classes}.",
  about_several: "The model looks for: {classes}. An image may show several.",
  about_outline: "The model outlines: {classes}.",
  kept_nothing: "Images go to this server only. Nothing of them is kept.",
  token: "Token of this server",
  enter: "Go on",
  token_wrong: "The token is not the server's.",
  work_title: "The image and the answer",
  thumbs: "Images of this patient",
  thumb: "Image {number}: {name}",
  add: "Add an image",
  again: "Start again",
  stage_title: "The image",
  view: "View",
  between: "between {first} and {second}",
  short: { kept: "Kept" }, // on a narrow screen
  views: {
    image: "Image",
    attention: "Attention",
    kept: "Kept patches",
    reconstruction: "Reconstruction",
    outline: "Outline",
  },
  captions: {
    image: "{name}, {width} × {height} pixels.",
    attention: "Where the model looks: the brighter, the more. Scaled to this image.",
    kept: "{kept} of {all} patches: all that the model sees at {share}.",
    kept_all: "All {all} patches are kept. Move the knob to drop some.",
    kept_smaller: "This model looks at the whole image, made smaller; no single patch is dropped.",
    kept_merged: "This model merges patches that are alike; no single patch is dropped.",
    reconstruction: "The kept patches, and what the pre-trained decoder makes of the rest.",
    outline: "Where the model sees: {classes}.",
    outline_none: "The model outlines nothing in this image.",
  },
  canvas: "{view} of {name}. {caption}",
  window: "Window",
  centre: "Centre",
  width: "Width",
  windows: { file: "as in the file", lung: "lung", brain: "brain", bone: "bone", "soft-tissue": "soft tissue" },
  window_note: "The window changes the picture, not the answer. You can also drag in the picture.",
  patient: "The patient",
  patient_of: "Mean of {images} images",
  answer: "The answer",
  answer_of: "The answer to image {number}",
  most_likely: "Most likely",
  most_likely_of: "Most likely, but not the only one",
  found: "Found",
  nothing_found: "none of the classes",
  set: "{coverage} set: {classes}.",
  set_note: "Of new images like the validation images, at least {coverage} have their right class in such a set.",
  set_all: "It holds every class: the model cannot tell.",
  no_set: "The run has no validation predictions, so no set can be given.",
  no_set_here: "No set is given: the run has no validation answers of this kind (from as few patches, or of patients).",
  no_set_several: "No set is given where an image may have several classes.",
  in_set: "in the set",
  differs: "By the thresholds of this run the answer is {predicted}.",
  threshold: "{name}: {value}. Its threshold is {threshold}.",
  no_threshold: "{name}: {value}.",
  outlined: "Outlined",
  share_of_image: "Share of the image",
  flags: {
    flat: "The image is almost one grey level.",
    unusual_brightness: "The image is far brighter or darker than the training images.",
    small: "The image is smaller than what the model reads, and was enlarged.",
    squeezed: "The image has other proportions than what the model reads, and was squeezed.",
    doubtful: "No class is as likely as the right ones of the validation images were: doubt this answer.",
    colour_dropped: "The image is in colour, and the model reads grey.",
  },
  knob: "From fewer patches",
  keep: "Share of the patches that the model may see",
  kept_of: "{share}, {kept} of {all} patches",
  same: "From {share}: {predicted}, {value}. The same answer.",
  changed: "From {share}: {predicted}, {value}. Another answer.",
  legend: "The mark in the bars: the answer from {share}.",
  time: "{some} ms; from all patches {all} ms.",
  no_gain: "This model finds its patches by a first pass over all of them, so fewer save no time.",
  unprepared: "It was not prepared for dropping patches (`msmae budget`): expect worse answers.",
  cases: "Training images that look most like it",
  cases_note: "Nearest by the model's own features. They show training patients.",
  case: "{label}, similarity {cosine}",
  footer: "msmae. Research software, not a medical device: not for diagnosis or treatment.",
  working: "Working …",
  done: "{predicted}, {value}.",
  done_outline: "Outlined: {classes}.",
  errors: {
    unreadable: "{name}: {reason}.",
    too_large: "The files are larger than {limit} MB together.",
    too_many: "At most {limit} images of one patient.",
    patients: "The DICOM headers name more than one patient. Give the images of one patient at a time.",
    busy: "The server is busy. Try again in a moment.",
    slow: "The upload took too long.",
    gone: "The server does not answer. Is it still running?",
    other: "{error}",
  },
};

export function say(key, values = {}) {
  const text = key.split(".").reduce((place, part) => place?.[part], strings) ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

const whole = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 });
const plain = new Intl.NumberFormat(language, { maximumSignificantDigits: 3 });

export const percent = (share) => (share > 0.005 && share < 0.1 || share > 0.99 && share < 1 ? fine : whole).format(share);
export const number = (value) => plain.format(value);
export const list = (words, type = "conjunction") => new Intl.ListFormat(language, { type }).format(words);

export function fillIn(root) {
  for (const part of root.querySelectorAll("[data-say]")) part.textContent = say(part.dataset.say);
  for (const part of root.querySelectorAll("[data-label]")) part.setAttribute("aria-label", say(part.dataset.label));
}
