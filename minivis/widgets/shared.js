// What all widgets use. Their own modules follow in the same file, so nothing here needs an import.

// Okabe and Ito's colours: told apart with every kind of colour vision.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000"];

/** An HTML element: h("button", { class: "mv-button", onclick: f }, "Play"). */
function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An SVG element, likewise. */
function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(element, attributes, children) {
  change(element, attributes);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set attributes; a function is a listener, null takes the attribute away. */
function change(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.replace(/^on/, ""), value);
    else if (value === null || value === undefined) element.removeAttribute(name);
    else element.setAttribute(name, value);
  }
  return element;
}

/** A labelled slider that shows its value and calls `changed(value)` while it moves. */
function slider({ label, min, max, step, value, changed, digits = 1 }) {
  const shown = h("output", {}, Number(value).toFixed(digits));
  const input = h("input", {
    type: "range", min, max, step, value, "aria-label": label,
    oninput: () => { shown.textContent = Number(input.value).toFixed(digits); changed(Number(input.value)); },
  });
  const element = h("label", { class: "mv-slider" }, h("span", {}, label), input, shown);
  element.set = (v) => { input.value = v; shown.textContent = Number(v).toFixed(digits); };
  return element;
}

/** Keep a tall picture as high as a screen: `box`, which holds the image, becomes narrower. */
function limitHeight(image, box, pixels = 480) {
  const limit = () => { box.style.maxWidth = `${Math.round((pixels * image.naturalWidth) / image.naturalHeight)}px`; };
  image.addEventListener("load", limit);
}

/** A function that runs at most once a frame, however often it is asked to. */
function oncePerFrame(f) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; f(); });
  };
}

/** Bytes from Python as numbers: `numbers(Float32Array, view)`. They are copied, since views need not be aligned. */
function numbers(Kind, { buffer, byteOffset, byteLength }) {
  return new Kind(buffer.slice(byteOffset, byteOffset + byteLength));
}

/**
 * What a widget and its kernel both know: the values of some traits. `set` changes one here and asks to redraw; a change
 * that comes from the kernel asks to redraw as well. `tell` sends what was changed here, `leave` stops listening.
 */
function sharedState(model, names, redraw) {
  const state = Object.fromEntries(names.map((name) => [name, model.get(name)])), touched = new Set();
  const listeners = names.map((name) => [`change:${name}`, () => {
    if (touched.has(name) || state[name] === model.get(name)) return; // it was changed here
    state[name] = model.get(name);
    redraw();
  }]);
  for (const [event, listener] of listeners) model.on(event, listener);
  return {
    state,
    set(name, value) { state[name] = value; touched.add(name); redraw(); },
    tell() {
      for (const name of touched) model.set(name, state[name]);
      if (touched.size) model.save_changes(); // for the kernel, if there is one
      touched.clear();
    },
    leave() { for (const [event, listener] of listeners) model.off(event, listener); },
  };
}

/** Follow a pointer from its press on `element` to its release: moved(event) is called with each step. */
function whileDragged(element, pressed, moved, released = () => {}) {
  let follows = false; // one pointer at a time: a second finger moves nothing
  element.addEventListener("pointerdown", (event) => {
    if (follows || event.button !== 0 || pressed(event) === false) return;
    follows = true;
    const { pointerId } = event;
    const step = (event) => { if (event.pointerId === pointerId) moved(event); };
    event.preventDefault();
    element.setPointerCapture(pointerId);
    const stop = (event) => {
      if (event.pointerId !== pointerId) return;
      follows = false;
      element.removeEventListener("pointermove", step);
      element.removeEventListener("pointerup", stop);
      element.removeEventListener("pointercancel", stop);
      released();
    };
    element.addEventListener("pointermove", step);
    element.addEventListener("pointerup", stop);
    element.addEventListener("pointercancel", stop);
  });
}

/** Keys pressed inside are the widget's own: JupyterLab has other uses for arrows, Enter and letters. */
function keepKeys(root) {
  root.addEventListener("keydown", (event) => {
    const isShortcut = event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter");
    if (!isShortcut) event.stopPropagation();
  });
  return root;
}
